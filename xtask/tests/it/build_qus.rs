//! The plan of `build-qus`.

use super::Xtask;
use serde_json::Value;

#[test]
fn the_plan_is_text_or_json() {
    let xtask = Xtask::new();
    let text = xtask.run(&["build-qus", "--dry-run", "--host", "s390x,armel"]).stdout;
    let bundle = xtask.path("target/qus/bundle/s390x");
    assert!(text.starts_with(&format!("build qus for s390x\nbundle  {}\n", bundle.display())), "{text}");
    let json = xtask.run(&["build-qus", "--dry-run", "--json", "--host", "s390x,armel"]).stdout;
    let plans: Vec<Value> =
        serde_json::Deserializer::from_str(&json).into_iter().map(Result::unwrap).collect();
    assert_eq!((&plans[0]["host"], &plans[1]["host"]), (&"s390x".into(), &"arm32v6".into()));
    assert_eq!(plans[0]["bundle"], bundle.to_str().unwrap());
}
