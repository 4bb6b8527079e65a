//! Why nobody gets a request, in words that help whoever sent it.

use anyserve_core::{Code, Error, Query};

use super::Registry;

/// Characters of a query that an error repeats.
const MAX_QUERY: usize = 200;

// === impl Registry ===

impl Registry {
    /// The error of a request that nobody gets, `avoided` of the replicas because the caller does not want them.
    ///
    /// `UNAVAILABLE` while nobody is registered, or else `NO_CAPABILITY`. It says what may have been meant; to find that
    /// out takes no longer in a larger fleet.
    pub fn nobody(&mut self, query: &Query, avoided: usize) -> Error {
        let count = self.len();
        if count == 0 {
            let message = "no replica is registered yet: start one with `anyserve serve app:app --api-server URL`, \
                           where URL is this server's";
            return Error::new(Code::Unavailable, message).with_retry_after(self.config.heartbeat * 2);
        }
        let message = match (avoided, self.index.best(query).is_empty()) {
            (0, true) => self.unknown(query, count),
            (0, false) => format!("the replicas that offer {} take none now", shown(query)),
            (avoided, _) => {
                format!("none of {count} replicas, {avoided} of which are to be avoided, serves {}", shown(query))
            }
        };
        Error::new(Code::NoCapability, format!("{message}; GET /explain says why"))
    }

    /// The error of a request for which so many replicas could not be reached, and nobody is left.
    pub(crate) fn out_of_reach(&mut self, query: &Query, unreached: u32) -> Error {
        let who = if unreached == 1 { "1 replica".to_owned() } else { format!("{unreached} replicas") };
        let message = if self.index.best(query).is_empty() {
            // Those were only the most promising ones.
            format!("{who} could not be reached, and {}; GET /explain says why", self.unknown(query, self.len()))
        } else {
            format!("{who} for {} could not be reached", shown(query))
        };
        Error::new(Code::Unavailable, message).with_retry_after(self.config.first_ejection)
    }

    fn unknown(&self, query: &Query, count: usize) -> String {
        let offers = if count == 1 { "1 replica offers".to_owned() } else { format!("{count} replicas offer") };
        let meant = self.index.meant(query).map_or(";".to_owned(), |meant| format!(": did you mean '{meant}'?"));
        format!("no replica serves {}{meant} GET /registry lists what {offers}", shown(query))
    }
}

fn shown(query: &Query) -> String {
    let mut text = query.to_string();
    if let Some((end, _)) = text.char_indices().nth(MAX_QUERY) {
        text.truncate(end);
        text.push('…');
    }
    text
}
