//! The command `embercask`: what a person does with a store without writing a program.

fn main() -> std::process::ExitCode {
    embercask_command::main()
}
