//! What is written is what Prometheus reads.

use super::*;

#[test]
fn a_controller_that_waits_says_so_and_nothing_of_pools() {
    let text = write(ControllerPage::default()).unwrap();
    assert!(text.contains("naru_controller_leads 0"), "{text}");
    for of_process in ["cpu_seconds_total", "resident_memory_bytes"] {
        assert!(text.contains(&format!("\nprocess_{of_process} ")), "{text}");
    }
    assert!(!text.contains("metallb_allocator"), "{text}");
}
