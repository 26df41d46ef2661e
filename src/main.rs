//! The `nearside` program: everything is in the library.

fn main() -> std::process::ExitCode {
    nearside::cli::main()
}
