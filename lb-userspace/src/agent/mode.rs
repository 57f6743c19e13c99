//! Where XDP runs on an interface that it would not do on, whatever the driver can.

use crate::{
    datapath::{AttachMode, DatapathError},
    net::LinkKind,
};

/// The mode for an interface of this kind, of which the operator asks for `asked`.
///
/// # Errors
/// [`DatapathError::NoNativeXdp`] for what could be attached natively and would serve
/// nobody.
pub(super) fn of(
    asked: AttachMode,
    name: &str,
    kind: LinkKind,
) -> Result<AttachMode, DatapathError> {
    match (asked, kind) {
        // Containers' hosts, such as those of kind and k3d.
        (AttachMode::Auto, LinkKind::Veth) => tracing::info!(
            "{name} is a virtual cable (veth): using generic XDP, since its other end may \
             leave checksums unfinished; --attach native if you know that it does not"
        ),
        (AttachMode::Auto, LinkKind::Bond) => tracing::info!(
            "{name} is a bond: using generic XDP, since in a driver it would see the ports, \
             also those that are not in use, and not the bond"
        ),
        (AttachMode::Native, LinkKind::Bond) => {
            return Err(DatapathError::NoNativeXdp {
                interface: name.to_owned(),
                reason: "it is a bond, and XDP would see its ports alone".to_owned(),
            });
        }
        _ => return Ok(asked),
    }
    Ok(AttachMode::Generic)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cables_and_bonds_take_generic_xdp_unless_native_is_asked_for_which_a_bond_refuses() {
        use AttachMode::{Auto, Generic, Native};
        let of = |asked, kind| of(asked, "bond0", kind);
        for kind in [
            LinkKind::Other,
            LinkKind::Veth,
            LinkKind::Bond,
            LinkKind::Tunnel,
        ] {
            assert_eq!(of(Generic, kind).unwrap(), Generic);
        }
        assert_eq!(of(Auto, LinkKind::Other).unwrap(), Auto);
        assert_eq!(of(Auto, LinkKind::Tunnel).unwrap(), Auto);
        assert_eq!(of(Auto, LinkKind::Veth).unwrap(), Generic);
        assert_eq!(of(Auto, LinkKind::Bond).unwrap(), Generic);
        assert_eq!(of(Native, LinkKind::Other).unwrap(), Native);
        assert_eq!(of(Native, LinkKind::Veth).unwrap(), Native);
        let refused = of(Native, LinkKind::Bond).unwrap_err().to_string();
        assert!(
            refused.contains("bond0") && refused.contains("--attach generic"),
            "{refused}"
        );
    }
}
