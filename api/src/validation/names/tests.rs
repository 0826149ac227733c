//! The sentences are compared whole: clients show them, and tests of clients compare them.

use super::*;

const SUBDOMAIN: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric \
    characters, '-' or '.', and must start and end with an alphanumeric character (e.g. \
    'example.com', regex used for validation is \
    '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";
const LABEL: &str = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or \
    '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex \
    used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')";
const QUALIFIED: &str = "must consist of alphanumeric characters, '-', '_' or '.', and must start and \
    end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for \
    validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')";

#[test]
fn names_of_objects_are_lowercase_subdomains() {
    for good in ["a", "a.b", "0-a.b-1", &"a".repeat(253)] {
        assert_eq!(dns1123_subdomain(good), Vec::<String>::new(), "{good}");
    }
    for bad in ["", "A", "a..b", "-a", "a-", "a_b", "a.", ".a", "ä"] {
        assert_eq!(dns1123_subdomain(bad), [SUBDOMAIN], "{bad}");
    }
    assert_eq!(dns1123_subdomain(&"a".repeat(254)), ["must be no more than 253 bytes"]);
}

#[test]
fn labels_are_short_and_without_dots() {
    assert_eq!(dns1123_label("a-1"), Vec::<String>::new());
    assert_eq!(dns1123_label("a.b"), ["must not contain dots"]);
    assert_eq!(dns1123_label("A"), [LABEL]);
    assert_eq!(dns1123_label(&"a".repeat(64)), ["must be no more than 63 bytes"]);
    assert!(dns1035_label("1a")[0].starts_with("a DNS-1035 label must consist of lower case"));
    assert_eq!(dns1035_label("a1"), Vec::<String>::new());
}

#[test]
fn a_qualified_name_has_an_optional_prefix() {
    for good in ["app", "app.kubernetes.io/name", "A_b.c-D", "a/B"] {
        assert_eq!(qualified_name(good), Vec::<String>::new(), "{good}");
    }
    assert_eq!(
        qualified_name(""),
        ["name part must be non-empty".to_owned(), format!("name part {QUALIFIED}")]
    );
    assert_eq!(qualified_name("/a"), ["prefix part must be non-empty"]);
    assert_eq!(qualified_name("A/a"), [format!("prefix part {SUBDOMAIN}")]);
    assert_eq!(
        qualified_name("a/b/c"),
        [format!(
            "a qualified name {QUALIFIED} with an optional DNS subdomain prefix and '/' (e.g. \
             'example.com/MyName')"
        )]
    );
    assert_eq!(qualified_name(&"a".repeat(64)), ["name part must be no more than 63 bytes"]);
}

#[test]
fn a_label_value_may_be_empty_but_not_odd() {
    assert_eq!(label_value(""), Vec::<String>::new());
    assert_eq!(
        label_value("a b"),
        [
            "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or \
          '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or \
          'my_value',  or '12345', regex used for validation is \
          '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')"
        ]
    );
}

#[test]
fn keys_of_config_maps_are_file_names() {
    assert_eq!(config_key("a.b_C-1"), Vec::<String>::new());
    assert_eq!(config_key(".."), ["must not be '..'"]);
    assert_eq!(config_key("..a"), ["must not start with '..'"]);
    assert_eq!(
        config_key("a/b"),
        ["a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. \
          'key.name',  or 'KEY_NAME',  or 'key-name', regex used for validation is \
          '[-._a-zA-Z0-9]+')"]
    );
}

#[test]
fn ports_and_addresses_have_their_ranges() {
    assert_eq!(port_number(0).as_deref(), Some("must be between 1 and 65535, inclusive"));
    assert_eq!(port_number(65535), None);
    assert_eq!(port_name("http"), Vec::<String>::new());
    assert_eq!(port_name("80"), ["must contain at least one letter (a-z)"]);
    assert_eq!(port_name("a--b"), ["must not contain consecutive hyphens"]);
    assert_eq!(port_name("-a"), ["must not begin or end with a hyphen"]);
    assert!(ip("10.0.0.256").is_some() && ip("::1").is_none() && ip("10.0.0.1").is_none());
    assert!(cidr("10.0.0.0/33").is_some() && cidr("10.0.0.0/24").is_none());
}

#[test]
fn a_generated_name_may_end_in_a_dash() {
    assert!(name_is_subdomain("web-", true).is_empty());
    assert!(!name_is_subdomain("web-", false).is_empty());
    assert_eq!(name_is_path_segment("a/b%", false), ["may not contain '/'", "may not contain '%'"]);
}

#[test]
fn a_variable_name_is_printable() {
    assert!(relaxed_env_name("MY VAR.1").is_empty());
    assert_eq!(relaxed_env_name("a=b").len(), 1);
    assert_eq!(relaxed_env_name(""), ["environment variable name must be non-empty"]);
}
