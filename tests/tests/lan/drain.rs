//! Backends that an operator takes out by hand.

use serde_json::json;

use crate::scene::{self, Scene, rows, text, wait};

fn served_by(scene: &Scene) -> Vec<String> {
    scene.answers(40).into_keys().collect()
}

#[test]
fn a_drained_backend_gets_nothing_new_also_from_the_next_agent_until_it_is_put_back() {
    let scene = Scene::new();
    let open = scene.open(scene.pods().len());
    let victims = [true, false].map(|local| scene.first(local).clone());
    let address = victims[0].address.to_string();
    let reply = scene.agent.json(&["drain", &address]).unwrap();
    assert_eq!(reply["backends"], json!([format!("{address}:3000")]));
    let said = scene.agent.cli(&["drain", &victims[1].name]).unwrap();
    let name = format!("default/{} is drained", victims[1].name);
    assert!(said.contains(&name), "{said}");

    let drained = || {
        let backends = scene.agent.json(&["backends"]).unwrap();
        let drained = rows(&backends)
            .iter()
            .filter(|row| row["condition"] == "drained");
        let mut names: Vec<_> = drained
            .inspect(|row| assert_eq!(row["weight"], 0))
            .map(|row| text(row, "name").to_owned())
            .collect();
        names.sort();
        names.dedup();
        names
    };
    let mut expected = victims.each_ref().map(|it| it.name.clone());
    expected.sort();
    let others: Vec<_> = scene.pods().to_vec();
    let others: Vec<_> = others
        .into_iter()
        .filter(|it| !expected.contains(&it.name))
        .collect();
    for how in ["as asked", "after a restart", "after a kill"] {
        match how {
            "after a restart" => scene.agent.restart().unwrap(),
            "after a kill" => {
                scene.agent.kill().unwrap();
                scene.agent.restart().unwrap();
            }
            _ => {}
        }
        assert_eq!(drained(), expected, "{how}");
        scene::assert_everyone(&served_by(&scene), &others);
        scene::assert_alive(&open);
    }

    // Out of the manifests and back: it is still drained, and meanwhile that is told.
    scene.set_endpoints(&others);
    let status = scene.agent.cli(&["status"]).unwrap();
    assert!(status.contains("no such backend is there now"), "{status}");
    let pods = scene.pods().to_vec();
    for service in scene::services() {
        scene.manifests.endpoints(&service, &pods).unwrap();
    }
    wait("they are back, and drained", || drained() == expected);
    scene::assert_everyone(&served_by(&scene), &others);

    scene.agent.cli(&["drain", &address, "--undo"]).unwrap();
    scene
        .agent
        .cli(&["drain", &victims[1].name, "--undo"])
        .unwrap();
    assert!(drained().is_empty());
    scene::assert_everyone(&served_by(&scene), &pods);
    assert_eq!(scene.agent.json(&["status"]).unwrap()["drained"], json!([]));
}

#[test]
fn whom_nobody_knows_cannot_be_drained_and_who_is_the_last_is_told() {
    let scene = Scene::with(scene::class_room(1), &[]);
    for (args, reason) in [
        (&["drain", "10.9.9.9"][..], "no backend 10.9.9.9"),
        (&["drain", "10.244.1.2:81"], "no backend 10.244.1.2:81"),
        (&["drain", "nobody"], "no backend nobody"),
        (&["drain", "10.244.1.2", "--undo"], "is not drained"),
    ] {
        let output = scene.agent.command(args).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{args:?}: {said}");
        assert!(said.contains(reason), "{args:?}: {said}");
    }
    let said = scene.agent.cli(&["drain", "10.244.1.2:3000"]).unwrap();
    assert!(
        said.contains("default/nest-server:80 has no backend left"),
        "{said}"
    );
}
