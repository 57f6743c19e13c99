//! The CustomResourceDefinitions of the kinds in [`types`](super::types), out of the types
//! themselves.

use std::io;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceColumnDefinition, CustomResourceDefinition, CustomResourceDefinitionNames,
    CustomResourceDefinitionSpec, CustomResourceDefinitionVersion, CustomResourceSubresourceStatus,
    CustomResourceSubresources, CustomResourceValidation, JSONSchemaProps,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube_core::{Resource as _, schema::StructuralSchemaRewriter};
use schemars::{JsonSchema, generate::SchemaSettings};
use serde_json::json;

use super::types::{
    AnnouncedStatus, IpAddressPoolSpec, IpAddressPoolStatus, L2AdvertisementSpec, Resource,
    ServiceL2StatusSpec, Spec,
};

/// Columns of `kubectl get`: name, type, path.
type Columns = &'static [(&'static str, &'static str, &'static str)];

/// All of them, as YAML for `kubectl apply`.
///
/// # Errors
/// Where a schema cannot be written, which no input brings about.
pub fn yaml() -> io::Result<String> {
    let pools = definition::<IpAddressPoolSpec, IpAddressPoolStatus>(&[
        ("Auto Assign", "boolean", ".spec.autoAssign"),
        ("Avoid Buggy IPs", "boolean", ".spec.avoidBuggyIPs"),
        ("Addresses", "string", ".spec.addresses"),
    ])?;
    let advertisements = definition::<L2AdvertisementSpec, NoStatus>(&[
        ("IPAddressPools", "string", ".spec.ipAddressPools"),
        ("Interfaces", "string", ".spec.interfaces"),
    ])?;
    let announced = definition::<ServiceL2StatusSpec, AnnouncedStatus>(&[
        ("Allocated Node", "string", ".status.node"),
        ("Service Name", "string", ".status.serviceName"),
        ("Service Namespace", "string", ".status.serviceNamespace"),
    ])?;
    let all = [pools, advertisements, announced];
    serde_saphyr::to_string_multiple(&all).map_err(io::Error::other)
}

/// Of a kind that nobody writes back to.
#[derive(JsonSchema)]
struct NoStatus {}

fn definition<S: Spec + JsonSchema, T: JsonSchema>(
    columns: Columns,
) -> io::Result<CustomResourceDefinition> {
    let kind = Resource::<S>::kind(&());
    let group = Resource::<S>::group(&());
    let columns = columns
        .iter()
        .map(|(name, of, path)| CustomResourceColumnDefinition {
            name: (*name).to_owned(),
            type_: (*of).to_owned(),
            json_path: (*path).to_owned(),
            ..CustomResourceColumnDefinition::default()
        });
    Ok(CustomResourceDefinition {
        metadata: ObjectMeta {
            name: Some(format!("{}.{group}", S::PLURAL)),
            ..ObjectMeta::default()
        },
        spec: CustomResourceDefinitionSpec {
            group: group.into_owned(),
            names: CustomResourceDefinitionNames {
                kind: kind.clone().into_owned(),
                list_kind: Some(format!("{kind}List")),
                plural: S::PLURAL.to_owned(),
                singular: Some(kind.to_lowercase()),
                ..CustomResourceDefinitionNames::default()
            },
            scope: "Namespaced".to_owned(),
            versions: vec![CustomResourceDefinitionVersion {
                name: Resource::<S>::version(&()).into_owned(),
                served: true,
                storage: true,
                additional_printer_columns: Some(columns.collect()),
                schema: Some(CustomResourceValidation {
                    open_api_v3_schema: Some(object::<S, T>()?),
                }),
                subresources: Some(CustomResourceSubresources {
                    status: Some(CustomResourceSubresourceStatus(json!({}))),
                    ..CustomResourceSubresources::default()
                }),
                ..CustomResourceDefinitionVersion::default()
            }],
            ..CustomResourceDefinitionSpec::default()
        },
        status: None,
    })
}

/// The schema of an object.
fn object<S: JsonSchema, T: JsonSchema>() -> io::Result<JSONSchemaProps> {
    serde_json::from_value(json!({
        "type": "object",
        "properties": {
            "apiVersion": { "type": "string" },
            "kind": { "type": "string" },
            "metadata": { "type": "object" },
            "spec": schema::<S>(),
            "status": schema::<T>(),
        },
    }))
    .map_err(io::Error::other)
}

/// A schema as the API server takes it: all in one place, and every field typed.
fn schema<T: JsonSchema>() -> serde_json::Value {
    let settings = SchemaSettings::openapi3().with(|it| {
        it.inline_subschemas = true;
        it.meta_schema = None;
    });
    let mut generator = settings
        .with_transform(StructuralSchemaRewriter)
        .into_generator();
    generator.root_schema_for::<T>().to_value()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_users_apply_is_what_the_types_say() {
        let committed = include_str!("../../../../deploy/crds.yaml");
        let current = committed == yaml().unwrap();
        assert!(current, "it is not: `naru crds > deploy/crds.yaml`");
    }
}
