//! The command `embercask`.

fn main() -> std::process::ExitCode {
    embercask_command::main()
}
