//! The IDL and the Rust types say the same. Values are made from the IDL, read
//! as the Rust types and written again: a field that one side lacks, a wrong
//! type or an unknown enumeration value shows as a difference.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a failed test says where")]

use guard_api::method::{self, *};
use guard_api::{CallError, INTERFACE, INTERFACE_IDL, Method, SERVICE, SERVICE_IDL};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};
use varlink_parser::{IDL, VStruct, VStructOrEnum, VType, VTypeExt};

/// Makes values of the IDL's types. `pick` chooses among enumeration values.
struct Maker<'a> {
    idl: &'a IDL<'a>,
    pick: usize,
    optional: bool,
}

impl Maker<'_> {
    fn object(&self, s: &VStruct<'_>) -> Value {
        let mut map = Map::new();
        for field in &s.elts {
            if let Some(v) = self.value(field.name, &field.vtype) {
                map.insert(field.name.to_owned(), v);
            }
        }
        Value::Object(map)
    }

    /// `None` for an absent optional value.
    fn value(&self, name: &str, t: &VTypeExt<'_>) -> Option<Value> {
        Some(match t {
            VTypeExt::Option(inner) if self.optional => self.value(name, inner)?,
            VTypeExt::Option(_) => return None,
            VTypeExt::Array(inner) => json!([self.value(name, inner)?]),
            VTypeExt::Dict(inner) => json!({ "key": self.value(name, inner)? }),
            VTypeExt::Plain(plain) => self.plain(name, plain),
        })
    }

    fn plain(&self, name: &str, t: &VType<'_>) -> Value {
        match t {
            VType::Bool => json!(true),
            VType::Int => json!(7),
            VType::Float => json!(0.5),
            VType::String
                if ["at", "since", "until", "first", "last"].contains(&name) || name.ends_with("_at") =>
            {
                json!("2026-11-21T22:26:40.000001Z")
            }
            VType::String if name == "data" => json!("Z3VhcmQ="),
            VType::String => json!("text"),
            VType::Object => json!({
                "seq": 1, "at": "2026-11-21T22:26:40.000001Z", "prev": "00", "event": "locked", "any": ["thing"]
            }),
            VType::Struct(s) => self.object(s),
            VType::Enum(e) => json!(e.elts[self.pick % e.elts.len()]),
            VType::Typename(name) => match &self.idl.typedefs[name].elt {
                VStructOrEnum::VStruct(s) => self.object(s),
                VStructOrEnum::VEnum(e) => json!(e.elts[self.pick % e.elts.len()]),
            },
        }
    }
}

fn without_nulls(v: Value) -> Value {
    match v {
        Value::Object(map) => Value::Object(
            map.into_iter().filter(|(_, v)| !v.is_null()).map(|(k, v)| (k, without_nulls(v))).collect(),
        ),
        Value::Array(list) => Value::Array(list.into_iter().map(without_nulls).collect()),
        other => other,
    }
}

fn agrees<T: Serialize + DeserializeOwned>(idl: &IDL<'_>, s: &VStruct<'_>, what: &str) {
    for pick in 0..20 {
        for optional in [true, false] {
            let made = Maker { idl, pick, optional }.object(s);
            let read: T =
                serde_json::from_value(made.clone()).unwrap_or_else(|e| panic!("{what}: {e} in {made}"));
            let written = serde_json::to_value(&read).unwrap();
            // Absent and null are the same.
            assert_eq!(without_nulls(written), made, "{what}");
        }
    }
}

fn check<M: Method>(idl: &IDL<'_>) {
    let (interface, name) = M::NAME.rsplit_once('.').unwrap();
    assert_eq!(interface, idl.name);
    let m = idl.methods.get(name).unwrap_or_else(|| panic!("{name} is not in the IDL"));
    agrees::<M>(idl, &m.input, name);
    agrees::<M::Reply>(idl, &m.output, name);
}

#[test]
fn methods_agree() {
    let idl = IDL::try_from(INTERFACE_IDL).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(idl.name, INTERFACE);
    let names: Vec<String> = idl.method_keys.iter().map(|m| format!("{INTERFACE}.{m}")).collect();
    assert_eq!(names, method::NAMES);
    check::<Status>(&idl);
    check::<Lock>(&idl);
    check::<Unlock>(&idl);
    check::<Check>(&idl);
    check::<Diff>(&idl);
    check::<Validate>(&idl);
    check::<Accept>(&idl);
    check::<Restore>(&idl);
    check::<Deploy>(&idl);
    check::<Rollback>(&idl);
    check::<AttachDeployment>(&idl);
    check::<Cancel>(&idl);
    check::<ListDeployments>(&idl);
    check::<ShowDeployment>(&idl);
    check::<ListAlerts>(&idl);
    check::<ShowAlert>(&idl);
    check::<AcknowledgeAlert>(&idl);
    check::<Watch>(&idl);
    check::<Log>(&idl);
    check::<VerifyLog>(&idl);
    check::<ExportLog>(&idl);
    check::<ExportBaseline>(&idl);
    check::<ListBaselines>(&idl);
    check::<InitBackup>(&idl);
    check::<CreateBackup>(&idl);
    check::<ListBackups>(&idl);
    check::<VerifyBackup>(&idl);
    check::<DrillBackup>(&idl);
    check::<PruneBackups>(&idl);
    check::<PinBackup>(&idl);
    check::<ExportBackup>(&idl);
    check::<Reload>(&idl);
    check::<Who>(&idl);
    check::<Reads>(&idl);
    check::<FindValues>(&idl);
}

#[test]
fn the_service_interface_agrees() {
    let idl = IDL::try_from(SERVICE_IDL).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(idl.name, SERVICE);
    check::<GetInfo>(&idl);
    check::<GetInterfaceDescription>(&idl);
}

#[test]
fn errors_agree() {
    for text in [INTERFACE_IDL, SERVICE_IDL] {
        let idl = IDL::try_from(text).unwrap_or_else(|e| panic!("{e}"));
        for (name, error) in &idl.errors {
            let full = format!("{}.{name}", idl.name);
            for optional in [true, false] {
                let made = Maker { idl: &idl, pick: 0, optional }.object(&error.parm);
                let Value::Object(map) = made.clone() else { unreachable!() };
                let e = CallError::from_parts(&full, map);
                assert!(matches!(&e, CallError::Known(_)), "{full}: {e:?}");
                assert!(!e.to_string().is_empty());
                let (again, parameters) = e.into_parts();
                assert_eq!((again, without_nulls(Value::Object(parameters))), (full.clone(), made));
            }
        }
    }
}

#[test]
fn every_part_of_the_idl_is_documented() {
    let idl = IDL::try_from(INTERFACE_IDL).unwrap_or_else(|e| panic!("{e}"));
    for (name, doc) in idl
        .methods
        .values()
        .map(|m| (m.name, m.doc))
        .chain(idl.typedefs.values().map(|t| (t.name, t.doc)))
        .chain(idl.errors.values().map(|e| (e.name, e.doc)))
    {
        assert!(!doc.is_empty(), "{name} has no documentation");
    }
}
