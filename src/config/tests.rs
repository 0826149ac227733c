use super::*;

fn arguments(line: &str) -> Vec<OsString> {
    line.split_whitespace().map(OsString::from).collect()
}

fn parse_with(file: &str, line: &str) -> Result<Cli, ConfigError> {
    let mut path = tempfile::NamedTempFile::new().unwrap();
    std::io::Write::write_all(&mut path, file.as_bytes()).unwrap();
    let mut args = arguments(line);
    args.push("--config".into());
    args.push(path.path().into());
    parse(args)
}

#[test]
fn the_command_line_is_consistent() {
    Cli::command().debug_assert();
}

#[test]
fn a_value_of_the_file_counts_where_no_flag_is_given() {
    assert_eq!(parse_with("log = 'debug'", "kontiki version").unwrap().global.log, "debug");
    assert_eq!(
        parse_with("log = 'debug'", "kontiki version --log warn").unwrap().global.log,
        "warn"
    );
}

#[test]
fn an_unknown_key_is_named_with_what_is_allowed() {
    let error =
        parse_with("[version]\noutptu = 'json'", "kontiki version").unwrap_err().to_string();
    assert!(error.contains("unknown key `version.outptu`"), "{error}");
    assert!(error.contains("allowed here: output"), "{error}");
    let error = parse_with("[serverr]", "kontiki version").unwrap_err().to_string();
    assert!(error.contains("unknown key `serverr`"), "{error}");
}

#[test]
fn a_wrong_value_names_the_flag_the_choices_and_the_file() {
    let error = parse_with("[version]\noutput = 'xml'", "kontiki version").unwrap_err().to_string();
    assert!(error.contains("'xml' for '--output"), "{error}");
    assert!(error.contains("table, json"), "{error}");
    assert!(error.contains("comes from /"), "{error}");
}

#[test]
fn a_value_of_the_wrong_type_is_refused_with_its_key() {
    let error =
        parse_with("[version]\noutput = { a = 1 }", "kontiki version").unwrap_err().to_string();
    assert!(error.contains("`version.output` is a table; expected a string"), "{error}");
}

#[test]
fn a_missing_file_and_a_broken_one_are_told_apart() {
    let missing =
        parse(arguments("kontiki version --config /nonexistent/kontiki.toml")).unwrap_err();
    assert!(matches!(missing, ConfigError::Read { .. }));
    assert!(matches!(parse_with("= 3", "kontiki version"), Err(ConfigError::Syntax { .. })));
}
