//! Scenes that once failed, or that made the program fail when it was broken on purpose,
//! each as small as it could be made.

use crate::scene::Line::{self, Scan, Services, TakeOver, TcEgress, TcIngress, Window, Xdp};

/// A scene to be kept.
pub(crate) struct Case {
    pub(crate) name: &'static str,
    pub(crate) lines: &'static [Line],
}

pub(crate) const CASES: &[Case] = &[
    Case {
        name: "nat: a flow whose first packet is too big has the source of its way out",
        lines: &[
            Services(&["rr udp [fd00::b]:53 > [fd00:5::9]:3001"]),
            Xdp(
                "uplink",
                "02000000006502000000000186dd6000000005191140fd000001000000000000000000000000\
                 fd00000000000000000000000000000b9c400035051990b8 00*1297 ",
            ),
        ],
    },
    Case {
        name: "an ICMP error that is too big is not answered with another",
        lines: &[
            Services(&["rr tcp [fd00::b]:53 > [fd00:5::9]:3000"]),
            Xdp(
                "uplink",
                "02000000006502000000000186dd6000000000e50640fd 00*14 02fd 00*14 \
                 0b9c41003500000000000000008002915b 00*213 ",
            ),
            TcIngress(
                "uplink",
                "02000000006502000000000186dd6100000004e22c40fd 00*15 fd 00*14 \
                 0b3a00000000000000030092a2000000000000000004aa0640fd 00*14 0bfd 00*14 \
                 0200359c41 00*1190 ",
            ),
        ],
    },
    Case {
        name: "a later fragment has both ports of the first",
        lines: &[
            Services(&["maglev tcp [fd00::b]:53 > [fd00:1::2]:3000"]),
            Xdp(
                "uplink",
                "02000000006502000000000186dd6ff0000000382c40fd000001 00*11 07fd 00*14 \
                 0b060000017b00d8469c4100350000000000000000a002f1e5 00*32 ",
            ),
            TcIngress(
                "uplink",
                "02000000006502000000000186dd6100000000362c40fd000001 00*11 07fd 00*14 \
                 0b06000b907b00d846 00*46 ",
            ),
        ],
    },
    Case {
        name: "a quoted datagram without checksum stays without",
        lines: &[
            Services(&["rr udp 10.7.0.1:53 > 10.244.1.4:3000"]),
            TcIngress(
                "uplink",
                "02000000006502000000000108004500001c0000400040113820c0a838010a0700019c420035\
                 000860b5",
            ),
            Xdp(
                "uplink",
                "0200000000650200000000010800450000380000400040013814c0a838010a07000103015b7f\
                 000000004500001c00000000401138200a070001c0a8380100359c4200000000",
            ),
        ],
    },
    Case {
        name: "the first fragment of a reply is noted",
        lines: &[
            Services(&["rr tcp 192.168.56.12:80 > 10.244.1.3:3001"]),
            TcIngress(
                "uplink",
                "0200000000650200000000010800450000290000400040064970c0a83802c0a8380c9c420050\
                 0000000000000000500243a20000000000",
            ),
            TcEgress(
                "uplink",
                "020000000001020000000065080045ff002b3a8a200040061aa30af40103c0a838020bb99c42\
                 00000000000000005010d58100000000000000",
            ),
        ],
    },
    Case {
        name: "a backend's SYN on a flow that was reset is its own affair",
        lines: &[
            Services(&["maglev tcp 192.168.56.11:80 > 10.244.1.4:3000"]),
            Xdp(
                "uplink",
                "0200000000650200000000010800451000a200004000400648e8c0a83802c0a8380b9c420050\
                 0000000000000000f046cab0 00*126 ",
            ),
            TcEgress(
                "uplink",
                "020000000001020000000065080045ff004400004000400635130af40104c0a838020bb89c42\
                 0000000000000000a01213d9 00*32 ",
            ),
        ],
    },
    Case {
        name: "dsr: a peer's link address is known also where the packet is too big to go",
        lines: &[
            Services(&["rr tcp 192.168.56.11:53 dsr > 10.5.0.9:3001"]),
            TcIngress(
                "uplink",
                "0200000000650200000105090800450005480000400040064355c0a838ffc0a8380b9c400035\
                 00000000000000005002082a 00*1316 ",
            ),
        ],
    },
    Case {
        name: "dsr: a peer without a link address does not have the last one that was looked up",
        lines: &[
            Services(&[
                "rr tcp 192.168.56.11:53 dsr > 192.168.56.102:3000",
                "maglev tcp 10.7.0.1:53 dsr > 203.0.113.9:3000",
            ]),
            TcIngress(
                "uplink",
                "0200000000650200000000010800450000280000400040060000c0a83802c0a8380b9c400035\
                 00000000000000005002000000000000",
            ),
            TcIngress(
                "uplink",
                "020000000065020000010066080045000028000040004006381ec0a838020a0700019c400035\
                 00000000000000005018798400000000",
            ),
        ],
    },
    Case {
        name: "what a backend sends after its own SYN is its own affair, without a record too",
        lines: &[
            Services(&["maglev tcp [fd00::b]:8080 dsr > [fd00:1::2]:3000"]),
            TcEgress(
                "uplink",
                "02000000000102000000006586dd6000000005280640fd000001 00*11 02fd 00*14 020bb8\
                 9c40000000000000000060029abc 00*1304 ",
            ),
            TcEgress(
                "uplink",
                "02000000000102000000006586dd6ff0000000140640fd000001 00*11 02fd 00*14 020bb8\
                 9c40000000000000000050103edb00000000",
            ),
        ],
    },
    Case {
        name: "a flow by a frontend that replies are not restored to has records",
        lines: &[
            Services(&[
                "maglev tcp 192.168.56.12:8080 192.168.56.11:8080 dsr > 10.244.1.3:3000=drain",
            ]),
            Window,
            TcIngress(
                "slow",
                "0200000006650200000000010800450000280000000040068972c0a83801c0a8380c9c421f90\
                 000000000000000050025c1c00000000",
            ),
        ],
    },
    Case {
        name: "dsr: a client on the backend's node is served by nat where the slot is settled",
        lines: &[
            Services(&["maglev udp [fd00::b]:53 dsr > [fd00::66]:3001"]),
            TcIngress(
                "uplink",
                "02000000006502000001006686dd6100000000081140fd 00*15 fd 00*14 0b9c4000350008\
                 695b",
            ),
        ],
    },
    Case {
        name: "a connection that opens does not begin with the former table",
        lines: &[
            Services(&["maglev tcp [fd00:7::101]:53 dsr > [fd00:1::4]:3000"]),
            Services(&["maglev tcp [fd00:7::101]:53 dsr > [fd00:1::4]:3000=0"]),
            TcIngress(
                "uplink",
                "0200000000656e61af00000186dd60000000003c0640fd 00*15 fd000007 00*10 01019c41\
                 00350000000000000000f00291ff 00*44 ",
            ),
        ],
    },
    Case {
        name: "a connection without a record outlives the table and the drain window",
        lines: &[
            Services(&["maglev tcp 192.168.56.11:8080 > 10.244.1.3:3000"]),
            Window,
            Services(&["maglev tcp 192.168.56.11:8080 > 10.244.1.3:3000=0"]),
            TcIngress(
                "uplink",
                "0200000000650200000000010800450000280000000040068973c0a83801c0a8380b9c421f90\
                 000000000000000050105c0f00000000",
            ),
            Window,
            TcIngress(
                "uplink",
                "0200000000650200000000010800450000280000000040068973c0a83801c0a8380b9c421f90\
                 000000000000000050105c0f00000000",
            ),
        ],
    },
    Case {
        name: "what began at the node before goes back, after the window by its record",
        lines: &[
            Services(&["maglev tcp 192.168.56.12:8080 dsr > 10.244.1.3:3000"]),
            Window,
            TakeOver,
            TcIngress(
                "uplink",
                "0200000000650200000000010800450000280000000040068972c0a83801c0a8380c9c421f90\
                 000000000000000050105c0f00000000",
            ),
            Window,
            TcIngress(
                "uplink",
                "0200000000650200000000010800450000280000000040068972c0a83801c0a8380c9c421f90\
                 000000000000000050105c0f00000000",
            ),
        ],
    },
    Case {
        name: "records count until a scan has settled the slot",
        lines: &[
            Services(&["maglev tcp 192.168.56.11:8080 > 10.244.1.3:3000"]),
            Window,
            Services(&["maglev tcp 192.168.56.11:8080 > 10.244.1.3:3000=0 10.244.1.4:3000"]),
            TcIngress(
                "uplink",
                "0200000000650200000000010800450000280000000040068973c0a83801c0a8380b9c421f90\
                 000000000000000050105c0f00000000",
            ),
            Window,
            TcIngress(
                "uplink",
                "0200000000650200000000010800450000280000000040068973c0a83801c0a8380b9c421f90\
                 000000000000000050105c0f00000000",
            ),
            Scan,
            TcIngress(
                "uplink",
                "0200000000650200000000010800450000280000000040068973c0a83801c0a8380b9c421f90\
                 000000000000000050105c0f00000000",
            ),
        ],
    },
];
