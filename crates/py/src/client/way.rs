//! The two ways to a replica: by its endpoint, or by what it serves.

use std::fmt;

use anyserve_client::{Call, Client, Discovery, Endpoint, EndpointError, Tls};
use anyserve_core::{Capability, Code, Error, Query, Response, Responses, Value};

/// Where a client was told to go.
#[derive(Clone, Debug)]
pub(super) enum Destination {
    /// To this server.
    Direct(Endpoint),
    /// To a replica that these API servers name.
    Discovered(Vec<Endpoint>),
}

/// What leads there.
#[derive(Clone)]
pub(super) enum Way {
    /// A connection.
    Direct(Client),
    /// Connections to whichever replica serves a call.
    Discovered(Discovery),
}

// === impl Destination ===

impl Destination {
    /// Reads an endpoint, or those of API servers.
    ///
    /// # Errors
    /// `INVALID_INPUT` for a text that is none, and unless there is one or the other.
    pub(super) fn read(endpoint: Option<&str>, api_servers: &[String]) -> Result<Self, Error> {
        let read = |text: &str| text.parse().map_err(|error: EndpointError| Error::invalid(error.to_string()));
        match (endpoint, api_servers) {
            (Some(endpoint), []) => read(endpoint).map(Self::Direct),
            (None, [_, ..]) => {
                api_servers.iter().map(|text| read(text)).collect::<Result<_, _>>().map(Self::Discovered)
            }
            _ => Err(Error::invalid("a client has either an endpoint or API servers")),
        }
    }

    /// Whether a connection is encrypted from the start.
    pub(super) fn secure(&self) -> bool {
        match self {
            Self::Direct(endpoint) => endpoint.secure(),
            Self::Discovered(servers) => servers.iter().any(Endpoint::secure),
        }
    }

    /// The way there. Nothing is sent.
    ///
    /// # Errors
    /// `INVALID_INPUT` if the TLS options cannot be used.
    pub(super) fn way(&self, tls: &Tls) -> Result<Way, Error> {
        match self {
            Self::Direct(endpoint) => Client::try_new(endpoint.clone(), tls).map(Way::Direct),
            Self::Discovered(servers) => Discovery::try_new(servers, tls).map(Way::Discovered),
        }
    }
}

impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Direct(endpoint) => endpoint.fmt(f),
            Self::Discovered(servers) => {
                let servers: Vec<_> = servers.iter().map(ToString::to_string).collect();
                write!(f, "API servers {}", servers.join(", "))
            }
        }
    }
}

// === impl Way ===

impl Way {
    pub(super) async fn infer(&self, call: &Call) -> Result<Response, Error> {
        match self {
            Self::Direct(client) => client.infer(call).await,
            Self::Discovered(discovery) => discovery.infer(&asked(call), call).await,
        }
    }

    pub(super) fn stream(&self, call: &Call) -> Result<Responses, Error> {
        match self {
            Self::Direct(client) => client.stream(call),
            Self::Discovered(discovery) => Ok(discovery.stream(asked(call), call.clone())),
        }
    }

    /// The server that knows of what serves a query; without one, any that there is.
    pub(super) async fn server(&self, query: Option<&Query>) -> Result<Client, Error> {
        match (self, query) {
            (Self::Direct(client), _) => Ok(client.clone()),
            (Self::Discovered(discovery), Some(query)) => discovery.current(query).await.map(|found| found.client),
            (Self::Discovered(discovery), None) => Ok(discovery.api_servers().client()),
        }
    }

    /// Endpoint and name of the replica that was found last; no name where it was not looked for.
    pub(super) fn newest(&self) -> Option<(String, Option<String>)> {
        match self {
            Self::Direct(client) => Some((client.endpoint().to_string(), None)),
            Self::Discovered(discovery) => {
                discovery.newest().map(|found| (found.endpoint.to_string(), Some(found.replica_id)))
            }
        }
    }
}

/// What the replica that gets a call must serve.
fn asked(call: &Call) -> Query {
    call.capability.as_ref().map_or_else(|| Query::model(&call.model), query)
}

/// The query for capabilities that have these pairs.
pub(super) fn query(capability: &Capability) -> Query {
    Query::equal_to(capability.iter().map(|(key, value): (&str, &Value)| (key, value.to_string())))
}

/// The answer of a model that nobody serves: it is not ready.
pub(super) fn known<T>(answer: Result<T, Error>) -> Result<Option<T>, Error> {
    match answer {
        Err(error) if error.code == Code::NoCapability => Ok(None),
        answer => answer.map(Some),
    }
}
