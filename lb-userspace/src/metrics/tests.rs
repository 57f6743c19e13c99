//! What is written is what Prometheus reads.

use super::*;

#[test]
fn a_controller_that_waits_says_so_and_nothing_of_pools() {
    let text = write(ControllerPage::default()).unwrap();
    assert!(text.contains("naru_controller_leads 0"), "{text}");
    assert!(text.contains("\nprocess_resident_memory_bytes "), "{text}");
    assert!(!text.contains("metallb_allocator"), "{text}");
}
