//! `app=web,tier!=db,env in (a,b),track notin (x),owner,!old,size>3`.

use serde_json::Value;

use crate::validation::names;

/// How a requirement compares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operator {
    /// The value is one of those.
    In,
    /// The label is missing or its value is none of those.
    NotIn,
    /// The label is there.
    Exists,
    /// The label is not there.
    DoesNotExist,
    /// The value is a greater integer.
    GreaterThan,
    /// The value is a smaller integer.
    LessThan,
}

impl Operator {
    /// As documents name it; those that only selectors in text have are not named.
    pub fn name(self) -> Option<&'static str> {
        match self {
            Self::In => Some("In"),
            Self::NotIn => Some("NotIn"),
            Self::Exists => Some("Exists"),
            Self::DoesNotExist => Some("DoesNotExist"),
            Self::GreaterThan | Self::LessThan => None,
        }
    }
}

/// One condition on one label.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Requirement {
    /// The label.
    pub key: String,
    /// How.
    pub operator: Operator,
    /// With what.
    pub values: Vec<String>,
}

impl Requirement {
    fn matches(&self, value: Option<&str>) -> bool {
        let is_listed = |value: &str| self.values.iter().any(|listed| listed == value);
        let compared = |holds: fn(i64, i64) -> bool| {
            let (Some(Ok(left)), Some(Ok(right))) =
                (value.map(str::parse::<i64>), self.values.first().map(|text| text.parse::<i64>()))
            else {
                return false;
            };
            holds(left, right)
        };
        match self.operator {
            Operator::In => value.is_some_and(is_listed),
            Operator::NotIn => !value.is_some_and(is_listed),
            Operator::Exists => value.is_some(),
            Operator::DoesNotExist => value.is_none(),
            Operator::GreaterThan => compared(|left, right| left > right),
            Operator::LessThan => compared(|left, right| left < right),
        }
    }
}

/// Conditions on labels, all of which must hold.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LabelSelector {
    requirements: Vec<Requirement>,
}

impl LabelSelector {
    /// Reads a selector's text; the error says what was found and what expected.
    pub fn parse(text: &str) -> Result<Self, String> {
        Parser { tokens: tokens(text), at: 0 }.selector()
    }

    /// The selector of a `LabelSelector` document (`matchLabels`, `matchExpressions`), or of a plain
    /// map of labels as in a service's spec.
    pub fn from_value(value: &Value) -> Option<Self> {
        let map = value.as_object()?;
        let mut requirements = Vec::new();
        let is_document = map.contains_key("matchLabels") || map.contains_key("matchExpressions");
        let labels = if is_document { value.get("matchLabels") } else { Some(value) };
        for (key, value) in labels.and_then(Value::as_object).into_iter().flatten() {
            requirements.push(Requirement {
                key: key.clone(),
                operator: Operator::In,
                values: vec![value.as_str()?.to_owned()],
            });
        }
        for expression in
            value.get("matchExpressions").and_then(Value::as_array).into_iter().flatten()
        {
            let operator = match expression.get("operator")?.as_str()? {
                "In" => Operator::In,
                "NotIn" => Operator::NotIn,
                "Exists" => Operator::Exists,
                "DoesNotExist" => Operator::DoesNotExist,
                _ => return None,
            };
            let values = expression.get("values").and_then(Value::as_array);
            requirements.push(Requirement {
                key: expression.get("key")?.as_str()?.to_owned(),
                operator,
                values: values
                    .into_iter()
                    .flatten()
                    .filter_map(|value| value.as_str().map(ToOwned::to_owned))
                    .collect(),
            });
        }
        Some(Self { requirements })
    }

    /// Whether it selects everything.
    pub fn is_empty(&self) -> bool {
        self.requirements.is_empty()
    }

    /// What must hold.
    pub fn requirements(&self) -> &[Requirement] {
        &self.requirements
    }

    /// Whether labels, given by a look-up, are selected.
    pub fn matches<'a>(&self, label: impl Fn(&str) -> Option<&'a str>) -> bool {
        self.requirements.iter().all(|requirement| requirement.matches(label(&requirement.key)))
    }
}

impl std::fmt::Display for LabelSelector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (index, Requirement { key, operator, values }) in self.requirements.iter().enumerate() {
            if index > 0 {
                f.write_str(",")?;
            }
            let listed = values.join(",");
            match (operator, values.len()) {
                (Operator::In, 1) => write!(f, "{key}={listed}"),
                (Operator::In, _) => write!(f, "{key} in ({listed})"),
                (Operator::NotIn, 1) => write!(f, "{key}!={listed}"),
                (Operator::NotIn, _) => write!(f, "{key} notin ({listed})"),
                (Operator::Exists, _) => f.write_str(key),
                (Operator::DoesNotExist, _) => write!(f, "!{key}"),
                (Operator::GreaterThan, _) => write!(f, "{key}>{listed}"),
                (Operator::LessThan, _) => write!(f, "{key}<{listed}"),
            }?;
        }
        Ok(())
    }
}

/// Splits into words and the signs `( ) , ! = == != > <`.
fn tokens(text: &str) -> Vec<String> {
    let mut tokens: Vec<String> = Vec::new();
    let mut chars = text.chars().peekable();
    while let Some(&next) = chars.peek() {
        let mut token = String::new();
        if next.is_whitespace() {
            chars.next();
            continue;
        }
        if is_sign(next) {
            token.push(next);
            chars.next();
            if matches!(next, '=' | '!') && chars.peek() == Some(&'=') {
                token.push('=');
                chars.next();
            }
        } else {
            while let Some(&part) = chars.peek().filter(|c| !is_sign(**c) && !c.is_whitespace()) {
                token.push(part);
                chars.next();
            }
        }
        tokens.push(token);
    }
    tokens
}

fn is_sign(c: char) -> bool {
    matches!(c, '(' | ')' | ',' | '!' | '=' | '>' | '<')
}

struct Parser {
    tokens: Vec<String>,
    at: usize,
}

impl Parser {
    fn peek(&self) -> &str {
        self.tokens.get(self.at).map_or("", String::as_str)
    }

    fn next(&mut self) -> String {
        let token = self.peek().to_owned();
        self.at += 1;
        token
    }

    fn selector(mut self) -> Result<LabelSelector, String> {
        let mut requirements = Vec::new();
        while !self.peek().is_empty() {
            requirements.push(self.requirement()?);
            match self.next().as_str() {
                "" => break,
                "," if !self.peek().is_empty() => {}
                "," => return Err("found '', expected: identifier after ','".into()),
                other => return Err(format!("found '{other}', expected: ',' or 'end of string'")),
            }
        }
        Ok(LabelSelector { requirements })
    }

    fn requirement(&mut self) -> Result<Requirement, String> {
        let is_absent = self.peek() == "!";
        if is_absent {
            self.next();
        }
        let key = self.word("identifier")?;
        if let Some(why) = names::qualified_name(&key).first() {
            return Err(format!("key: Invalid value: {key:?}: {why}"));
        }
        if is_absent {
            return Ok(Requirement { key, operator: Operator::DoesNotExist, values: vec![] });
        }
        let (operator, values) = match self.peek() {
            "" | "," => (Operator::Exists, vec![]),
            "=" | "==" => (Operator::In, self.value()?),
            "!=" => (Operator::NotIn, self.value()?),
            ">" => (Operator::GreaterThan, self.number(&key)?),
            "<" => (Operator::LessThan, self.number(&key)?),
            "in" => (Operator::In, self.values()?),
            "notin" => (Operator::NotIn, self.values()?),
            other => {
                return Err(format!("found '{other}', expected: in, notin, =, ==, !=, gt, lt"));
            }
        };
        for value in &values {
            if let Some(why) = names::label_value(value).first() {
                return Err(format!("values[0][{key}]: Invalid value: {value:?}: {why}"));
            }
        }
        Ok(Requirement { key, operator, values })
    }

    fn word(&mut self, expected: &str) -> Result<String, String> {
        let token = self.next();
        if token.is_empty() || token.starts_with(is_sign) {
            return Err(format!("found '{token}', expected: {expected}"));
        }
        Ok(token)
    }

    /// After `=`: a word, or nothing for the empty value.
    fn value(&mut self) -> Result<Vec<String>, String> {
        self.next();
        if matches!(self.peek(), "" | ",") {
            return Ok(vec![String::new()]);
        }
        Ok(vec![self.word("identifier")?])
    }

    fn number(&mut self, key: &str) -> Result<Vec<String>, String> {
        self.next();
        let word = self.word("identifier")?;
        if word.parse::<i64>().is_err() {
            return Err(format!(
                "values[0][{key}]: Invalid value: {word:?}: for 'Gt', 'Lt' operators, the value \
                 must be an integer"
            ));
        }
        Ok(vec![word])
    }

    /// After `in`: `(a,b)`.
    fn values(&mut self) -> Result<Vec<String>, String> {
        self.next();
        let open = self.next();
        if open != "(" {
            return Err(format!("found '{open}' expected: '('"));
        }
        let mut values = vec![];
        loop {
            values.push(match self.peek() {
                "," | ")" => String::new(),
                _ => self.word("identifier")?,
            });
            match self.next().as_str() {
                "," => {}
                ")" => return Ok(values),
                other => return Err(format!("found '{other}', expected: ',' or ')'")),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn selects(selector: &str, labels: &[(&str, &str)]) -> bool {
        let selector = LabelSelector::parse(selector).expect(selector);
        selector.matches(|key| labels.iter().find(|(own, _)| *own == key).map(|(_, value)| *value))
    }

    #[test]
    fn each_operator_selects_what_it_says() {
        let labels = [("app", "web"), ("size", "3"), ("empty", "")];
        for selector in [
            "",
            "app=web",
            "app==web",
            "app",
            "!db",
            "app!=db",
            "db!=x",
            "app in (db, web)",
            "app notin (db)",
            "db notin (x)",
            "size>2",
            "size<4",
            "app=web,size",
            "empty=",
            "empty in (,x)",
            " app = web , !db ",
        ] {
            assert!(selects(selector, &labels), "{selector}");
        }
        for selector in [
            "app=db",
            "!app",
            "db",
            "app in (db)",
            "app notin (web)",
            "size>3",
            "app>1",
            "app=web,db",
        ] {
            assert!(!selects(selector, &labels), "{selector}");
        }
    }

    #[test]
    fn a_wrong_selector_is_refused() {
        for selector in
            ["=a", "a in b", "a in (b", "a,,b", "a=b c", "a,", "a>x", "a=!", "-a=b", "a=%"]
        {
            assert!(LabelSelector::parse(selector).is_err(), "{selector}");
        }
    }

    #[test]
    fn documents_and_plain_maps_give_the_same_text() {
        let document = serde_json::json!({
            "matchLabels": { "app": "web" },
            "matchExpressions": [{ "key": "tier", "operator": "NotIn", "values": ["a", "b"] }],
        });
        let selector = LabelSelector::from_value(&document).expect("valid");
        assert_eq!(selector.to_string(), "app=web,tier notin (a,b)");
        let plain = LabelSelector::from_value(&serde_json::json!({ "app": "web" })).expect("valid");
        assert_eq!(plain.to_string(), "app=web");
    }
}
