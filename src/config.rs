//! Configuration: flags, then the environment, then one TOML file.
//!
//! The file has a table for each verb with the names of its flags as keys (`[server]`,
//! `data-dir = "…"`), and the global flags at the top. Its values become the defaults of the flags
//! before clap parses, so all three sources share one set of names, checks and messages.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Arg, Command, CommandFactory, FromArgMatches};
use thiserror::Error;
use toml::{Table, Value};

use crate::cli::{Cli, EXIT_USAGE};

/// A mistake in the configuration.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// In flags or environment; also how clap asks for help or the version to be printed.
    #[error("{0}")]
    Flags(clap::Error),
    /// A value that may have come from the file.
    #[error("{error}\n(what is neither a flag nor in the environment comes from {})", path.display())]
    Value {
        /// The file.
        path: PathBuf,
        /// What clap says, naming the flag.
        error: clap::Error,
    },
    /// The file cannot be read.
    #[error("read configuration {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The file is not TOML.
    #[error("{}: {error}", path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// Where and what.
        error: toml::de::Error,
    },
    /// A key that nothing reads.
    #[error("{}: unknown key `{key}`; allowed here: {allowed}", path.display())]
    UnknownKey {
        /// The file.
        path: PathBuf,
        /// The key with the tables it is in.
        key: String,
        /// What may stand there.
        allowed: String,
    },
    /// A value that cannot be a flag's.
    #[error("{}: `{key}` is {found}; expected {expected}", path.display())]
    WrongType {
        /// The file.
        path: PathBuf,
        /// The key with the tables it is in.
        key: String,
        /// What is there.
        found: &'static str,
        /// What must be there.
        expected: &'static str,
    },
}

impl ConfigError {
    /// Prints it and gives the exit code.
    pub fn report(&self) -> ExitCode {
        match self {
            // Help and version come as errors too, and go to standard output with code 0.
            Self::Flags(error) => {
                drop(error.print());
                ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(EXIT_USAGE))
            }
            Self::Value { .. } => {
                eprintln!("{self}");
                ExitCode::from(EXIT_USAGE)
            }
            other => {
                match std::error::Error::source(other) {
                    Some(source) => eprintln!("error: {other}: {source}"),
                    None => eprintln!("error: {other}"),
                }
                ExitCode::from(EXIT_USAGE)
            }
        }
    }
}

/// Parses a command line, and the environment and the file with it.
pub fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Cli, ConfigError> {
    let args: Vec<OsString> = args.into_iter().collect();
    let mut command = Cli::command();
    let file = config_path(&args);
    if let Some(path) = &file {
        command = with_file(command, path)?;
    }
    let explain = |error: clap::Error| match &file {
        Some(path) if error.use_stderr() => ConfigError::Value { path: path.clone(), error },
        _ => ConfigError::Flags(error),
    };
    let matches = command.try_get_matches_from(args).map_err(explain)?;
    Cli::from_arg_matches(&matches).map_err(ConfigError::Flags)
}

/// `--config` must be known before clap parses, since it changes the defaults.
fn config_path(args: &[OsString]) -> Option<PathBuf> {
    let mut args = args.iter().skip(1).take_while(|arg| *arg != "--");
    while let Some(arg) = args.next() {
        if arg == "--config" {
            return args.next().map(PathBuf::from);
        }
        if let Some(path) = arg.to_str().and_then(|arg| arg.strip_prefix("--config=")) {
            return Some(PathBuf::from(path));
        }
    }
    std::env::var_os("KONTIKI_CONFIG").filter(|path| path != OsStr::new("")).map(PathBuf::from)
}

fn with_file(command: Command, path: &Path) -> Result<Command, ConfigError> {
    let text = std::fs::read_to_string(path)
        .map_err(|source| ConfigError::Read { path: path.into(), source })?;
    let table: Table =
        text.parse().map_err(|error| ConfigError::Syntax { path: path.into(), error })?;
    apply_table(command, path, "", table)
}

/// Makes the values of `table` the defaults of the flags of `command`; tables go to subcommands.
fn apply_table(
    mut command: Command,
    path: &Path,
    prefix: &str,
    table: Table,
) -> Result<Command, ConfigError> {
    for (name, value) in table {
        let key = if prefix.is_empty() { name.clone() } else { format!("{prefix}.{name}") };
        let is_verb = command.find_subcommand(&name).is_some();
        if let (true, Value::Table(inner)) = (is_verb, &value) {
            let verb = command.find_subcommand(&name).cloned().unwrap_or_default();
            let verb = apply_table(verb, path, &key, inner.clone())?;
            command = command.mut_subcommand(&name, |_| verb);
            continue;
        }
        let Some(id) =
            settable(&command).find(|arg| arg.get_long() == Some(&name)).map(Arg::get_id)
        else {
            let allowed = allowed_keys(&command);
            return Err(ConfigError::UnknownKey { path: path.into(), key, allowed });
        };
        let values = texts(&value).map_err(|(found, expected)| ConfigError::WrongType {
            path: path.into(),
            key,
            found,
            expected,
        })?;
        let id = id.clone();
        command = command.mut_arg(id, |arg| arg.default_values(values));
    }
    Ok(command)
}

fn settable(command: &Command) -> impl Iterator<Item = &Arg> {
    command
        .get_arguments()
        .filter(|arg| !matches!(arg.get_id().as_str(), "config" | "help" | "version"))
}

fn allowed_keys(command: &Command) -> String {
    let mut names: Vec<&str> = settable(command).filter_map(Arg::get_long).collect();
    let verbs = command.get_subcommands().map(Command::get_name).filter(|name| *name != "help");
    names.extend(verbs);
    names.sort_unstable();
    names.join(", ")
}

/// A value as the words of a command line.
fn texts(value: &Value) -> Result<Vec<String>, (&'static str, &'static str)> {
    const EXPECTED: &str = "a string, a number, true or false, or a list of these";
    match value {
        Value::String(text) => Ok(vec![text.clone()]),
        Value::Integer(_) | Value::Float(_) | Value::Boolean(_) => Ok(vec![value.to_string()]),
        Value::Array(values) => {
            let nested: Result<Vec<_>, _> = values.iter().map(texts).collect();
            Ok(nested?.into_iter().flatten().collect())
        }
        Value::Table(_) => Err(("a table", EXPECTED)),
        Value::Datetime(_) => Err(("a date", EXPECTED)),
    }
}

#[cfg(test)]
mod tests;
