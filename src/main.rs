//! `kontiki`, the binary: see [`kontiki::cli`].

fn main() -> std::process::ExitCode {
    kontiki::cli::main()
}
