//! `kontiki`, the binary: see [`kontiki::cli`].

/// glibc's allocator is what limits writes of many clients: with jemalloc three members do 10,070
/// puts of 1 KiB a second for 256 clients where they did 8,340, at 142 instead of 183 us of CPU each
/// (`kontiki bench compare`, 2 cores).
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> std::process::ExitCode {
    kontiki::cli::main()
}
