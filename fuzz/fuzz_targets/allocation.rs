#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| vscode_shell_proxy::testing::allocation::check(data));
