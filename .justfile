# Shortcuts for the commands of the README; each is also a plain cargo command.

# Everything that must pass before a change lands. Writes nothing.
verify:
    cargo run -p kontiki-tests

# Formats, and applies what clippy can apply by itself.
fix:
    cargo fmt --all
    cargo clippy --fix --allow-dirty --workspace --all-targets
