//! The parser of selector texts. It reads from left to right, once, without recursion.

use crate::{Bound, Condition, Op};

/// A text that is no selector.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("selector '{text}' at position {position}: expected {expected}")]
pub struct SelectorError {
    /// The whole text.
    pub text: String,
    /// Byte offset of the first character that does not fit.
    pub position: usize,
    /// What would have fitted there.
    pub expected: &'static str,
}

/// Longest selector that is read, in bytes.
const MAX_LEN: usize = 16 << 10;

pub(crate) fn parse(text: &str) -> Result<Vec<Condition>, SelectorError> {
    let mut reader = Reader { text, at: 0 };
    if text.len() > MAX_LEN {
        return Err(reader.expected("at most 16384 bytes"));
    }
    let mut conditions = vec![reader.condition()?];
    while reader.takes(",") {
        conditions.push(reader.condition()?);
    }
    if reader.at < text.len() { Err(reader.expected("',' or the end")) } else { Ok(conditions) }
}

/// The text that [`parse`] reads these conditions from.
pub(crate) fn write(conditions: &[Condition]) -> String {
    conditions.iter().map(write_one).collect::<Vec<_>>().join(",")
}

fn write_one(condition: &Condition) -> String {
    let key = quoted(&condition.key);
    let list = |texts: &[String]| texts.iter().map(|text| quoted(text)).collect::<Vec<_>>().join(",");
    match &condition.op {
        Op::Equals(text) => format!("{key}={}", quoted(text)),
        Op::NotEquals(text) => format!("{key}!={}", quoted(text)),
        Op::In(texts) => format!("{key} in ({})", list(texts)),
        Op::NotIn(texts) => format!("{key} notin ({})", list(texts)),
        Op::Exists => key,
        Op::Missing => format!("!{key}"),
        Op::Less(bound) => format!("{key}<{}", number(*bound)),
        Op::AtMost(bound) => format!("{key}<={}", number(*bound)),
        Op::Greater(bound) => format!("{key}>{}", number(*bound)),
        Op::AtLeast(bound) => format!("{key}>={}", number(*bound)),
    }
}

/// In the shorter one of its spellings: 1e300 does not have 301 digits on its way through a fleet.
fn number(bound: Bound) -> String {
    let (plain, short) = (bound.to_string(), format!("{:e}", bound.get()));
    quoted(if short.len() < plain.len() { &short } else { &plain })
}

fn quoted(text: &str) -> String {
    if !text.is_empty() && text.chars().all(is_word) {
        return text.to_owned();
    }
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

type Comparison = (&'static str, fn(Bound) -> Op);

/// The longer sign first, where one begins like another.
const COMPARISONS: [Comparison; 4] = [("<=", Op::AtMost), (">=", Op::AtLeast), ("<", Op::Less), (">", Op::Greater)];

struct Reader<'a> {
    text: &'a str,
    at: usize,
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || "-_./:@+".contains(c)
}

// === impl Reader ===

impl Reader<'_> {
    fn condition(&mut self) -> Result<Condition, SelectorError> {
        if self.takes("!") {
            return Ok(Condition { key: self.word("a key after '!'")?, op: Op::Missing });
        }
        let key = self.word("a key")?;
        let op = self.op()?;
        Ok(Condition { key, op })
    }

    fn op(&mut self) -> Result<Op, SelectorError> {
        if self.takes("==") || self.takes("=") {
            return self.word("a value").map(Op::Equals);
        }
        if self.takes("!=") {
            return self.word("a value").map(Op::NotEquals);
        }
        if let Some(compare) = self.comparison() {
            return self.number().map(compare);
        }
        if self.takes_word("notin") {
            return self.list().map(Op::NotIn);
        }
        if self.takes_word("in") {
            return self.list().map(Op::In);
        }
        Ok(Op::Exists)
    }

    fn comparison(&mut self) -> Option<fn(Bound) -> Op> {
        COMPARISONS.into_iter().find(|(sign, _)| self.takes(sign)).map(|(_, op)| op)
    }

    fn number(&mut self) -> Result<Bound, SelectorError> {
        self.space();
        let start = self.at;
        let word = self.word("a number")?;
        let number = word.parse().ok().filter(|number: &f64| number.is_finite());
        number.map(Bound::from).ok_or_else(|| {
            self.at = start;
            self.expected("a number")
        })
    }

    fn list(&mut self) -> Result<Vec<String>, SelectorError> {
        if !self.takes("(") {
            return Err(self.expected("'('"));
        }
        let mut values = vec![self.word("a value")?];
        while self.takes(",") {
            values.push(self.word("a value")?);
        }
        if self.takes(")") { Ok(values) } else { Err(self.expected("',' or ')'")) }
    }

    fn word(&mut self, expected: &'static str) -> Result<String, SelectorError> {
        if self.takes("\"") {
            return self.quoted();
        }
        let rest = &self.text[self.at..];
        let len = rest.find(|c| !is_word(c)).unwrap_or(rest.len());
        if len == 0 {
            return Err(self.expected(expected));
        }
        self.at += len;
        Ok(rest[..len].to_owned())
    }

    /// The rest of a quoted text; a backslash takes the next character as it is.
    fn quoted(&mut self) -> Result<String, SelectorError> {
        let rest = &self.text[self.at..];
        let mut text = String::new();
        let mut chars = rest.char_indices();
        while let Some((offset, c)) = chars.next() {
            match c {
                '"' => {
                    self.at += offset + 1;
                    return Ok(text);
                }
                '\\' => text.extend(chars.next().map(|(_, c)| c)),
                c => text.push(c),
            }
        }
        self.at = self.text.len();
        Err(self.expected("'\"'"))
    }

    fn takes(&mut self, sign: &str) -> bool {
        self.space();
        let found = self.text[self.at..].starts_with(sign);
        if found {
            self.at += sign.len();
        }
        found
    }

    fn takes_word(&mut self, word: &str) -> bool {
        self.space();
        let Some(rest) = self.text[self.at..].strip_prefix(word) else { return false };
        if rest.starts_with(is_word) {
            return false;
        }
        self.at += word.len();
        true
    }

    fn space(&mut self) {
        let rest = &self.text[self.at..];
        self.at += rest.len() - rest.trim_start().len();
    }

    fn expected(&self, expected: &'static str) -> SelectorError {
        SelectorError { text: self.text.chars().take(200).collect(), position: self.at, expected }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Query;
    use proptest::prelude::*;

    fn ops(text: &str) -> Vec<(String, Op)> {
        parse(text).unwrap().into_iter().map(|condition| (condition.key, condition.op)).collect()
    }

    #[test]
    fn every_form_of_condition_is_read() {
        let text = "type=chat, model != x,size>=7,q in (a, b),r notin(c),gpu,!beta,\"a b\" == \"x,\\\"y\"";
        let key = |key: &str, op| (key.to_owned(), op);
        assert_eq!(
            ops(text),
            [
                key("type", Op::Equals("chat".into())),
                key("model", Op::NotEquals("x".into())),
                key("size", Op::AtLeast(7.0.into())),
                key("q", Op::In(vec!["a".into(), "b".into()])),
                key("r", Op::NotIn(vec!["c".into()])),
                key("gpu", Op::Exists),
                key("beta", Op::Missing),
                key("a b", Op::Equals("x,\"y".into())),
            ]
        );
    }

    #[test]
    fn a_selector_that_does_not_parse_names_the_position() {
        for (text, position, expected) in [
            ("", 0, "a key"),
            ("a=", 2, "a value"),
            ("a=b,", 4, "a key"),
            ("a=b c", 4, "',' or the end"),
            ("a<x", 2, "a number"),
            ("a in b", 5, "'('"),
            ("a in (b", 7, "',' or ')'"),
            ("a=\"b", 4, "'\"'"),
        ] {
            let error = parse(text).unwrap_err();
            assert_eq!((error.position, error.expected), (position, expected), "{text}");
        }
    }

    #[test]
    fn a_key_that_begins_like_an_operator_is_a_key() {
        assert_eq!(ops("in=1,inner"), [("in".into(), Op::Equals("1".into())), ("inner".into(), Op::Exists)]);
    }

    #[test]
    fn what_is_written_is_hardly_longer_than_what_was_read() {
        for text in ["a<1e300", "a<=-2.5e-300", "a>7", "a>=-0.5", "a<1e21", "a<123456789"] {
            assert_eq!(write(&parse(text).unwrap()), text);
        }
    }

    fn any_op() -> impl Strategy<Value = Op> {
        let text = || ".{1,6}";
        let texts = || prop::collection::vec(text(), 1..4);
        let bound = || any::<f64>().prop_filter("a number", |number| number.is_finite()).prop_map(Bound::from);
        prop_oneof![
            text().prop_map(Op::Equals),
            text().prop_map(Op::NotEquals),
            texts().prop_map(Op::In),
            texts().prop_map(Op::NotIn),
            Just(Op::Exists),
            Just(Op::Missing),
            bound().prop_map(Op::Less),
            bound().prop_map(Op::AtMost),
            bound().prop_map(Op::Greater),
            bound().prop_map(Op::AtLeast),
        ]
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_as_the_same_query(conditions in prop::collection::vec((".{1,6}", any_op()), 1..5)) {
            let conditions = conditions.into_iter().map(|(key, op)| Condition { key, op }).collect();
            let query = Query::all(conditions);
            let text = query.to_selector().unwrap();
            prop_assert_eq!(Query::parse(&text).unwrap(), query, "{}", text);
        }

        #[test]
        fn any_text_is_read_or_refused(text in ".{0,60}") {
            let _ = Query::parse(&text);
        }
    }
}
