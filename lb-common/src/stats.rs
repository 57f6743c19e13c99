//! Counters, one copy a CPU; the reader adds them up.

/// Value of maps `SERVICE_STATS` (key: service index) and `BACKEND_STATS` (key:
/// [`crate::BackendId::index`]), 40 bytes. Bytes count whole frames.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Packets from clients.
    pub packets_in: u64,
    /// Bytes from clients.
    pub bytes_in: u64,
    /// Packets to clients.
    pub packets_out: u64,
    /// Bytes to clients.
    pub bytes_out: u64,
    /// Flows begun.
    pub flows: u64,
}

impl core::ops::AddAssign for Stats {
    fn add_assign(&mut self, other: Self) {
        self.packets_in = self.packets_in.wrapping_add(other.packets_in);
        self.bytes_in = self.bytes_in.wrapping_add(other.bytes_in);
        self.packets_out = self.packets_out.wrapping_add(other.packets_out);
        self.bytes_out = self.bytes_out.wrapping_add(other.bytes_out);
        self.flows = self.flows.wrapping_add(other.flows);
    }
}

/// Value of map `VERDICTS` (key: [`crate::Verdict::counter`]), 16 bytes.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VerdictCount {
    /// Packets that left the program this way.
    pub packets: u64,
    /// Their bytes, as they came in.
    pub bytes: u64,
}

impl core::ops::AddAssign for VerdictCount {
    fn add_assign(&mut self, other: Self) {
        self.packets = self.packets.wrapping_add(other.packets);
        self.bytes = self.bytes.wrapping_add(other.bytes);
    }
}
