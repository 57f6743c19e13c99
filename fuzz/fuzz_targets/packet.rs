//! Any frame through the kernel part's parser, rewriters and answers.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| naru_fuzz::check(data));
