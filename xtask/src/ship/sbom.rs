//! Bills of materials of the emulators and of `qus`, in SPDX 2.3 and CycloneDX 1.6.
//!
//! Tarballs and images contain one of each for what is in them. They depend on the bundle and the commit only.

use std::path::Path;

use anyhow::Result;
use qus_core::bundle::Bundle;
use qus_core::digest::Sha256;
use serde_json::{Value, json};

use crate::bundle::licences::{Licensed, Part};
use crate::ship::date::Date;

/// Where bills of materials are in tarballs and, below `/usr`, in images.
pub(crate) const INSTALLED: &str = "share/sbom";

/// The bills of materials of a part of a bundle: file names and texts. `epoch` is when its commit was made, in seconds since
/// 1970.
///
/// # Errors
/// The bundle does not say what its parts are.
pub(crate) fn documents(
    bundle: &Bundle,
    dir: &Path,
    of: Licensed,
    epoch: u64,
) -> Result<[(String, String); 2]> {
    let parts = of.parts(dir)?;
    let name = match of {
        Licensed::Emulators => "qemu",
        Licensed::Program => "qus",
    };
    let material = Material {
        name: format!("{name}_{}_{}", bundle.version(), bundle.recipe.host),
        version: bundle.version(),
        parts: &parts,
        created: Date::of(epoch).iso(),
    };
    let text = |value: Value| serde_json::to_string_pretty(&value).map(|text| text + "\n");
    Ok([
        (format!("{}.spdx.json", material.name), text(material.spdx())?),
        (format!("{}.cdx.json", material.name), text(material.cyclonedx())?),
    ])
}

/// What a document describes.
struct Material<'a> {
    name: String,
    version: String,
    parts: &'a [Part],
    /// As in `2026-11-29T12:00:00Z`.
    created: String,
}

impl Material<'_> {
    fn spdx(&self) -> Value {
        let package = |id: &str, name: &str, version: &str, licence: Option<&str>| {
            json!({
                "SPDXID": id, "name": name, "versionInfo": version, "downloadLocation": "NOASSERTION",
                "filesAnalyzed": false, "licenseConcluded": "NOASSERTION",
                "licenseDeclared": licence.unwrap_or("NOASSERTION"), "copyrightText": "NOASSERTION",
            })
        };
        let main = "SPDXRef-Package";
        let mut packages = vec![package(main, &self.name, &self.version, None)];
        let mut relationships = vec![relationship("SPDXRef-DOCUMENT", "DESCRIBES", main)];
        for (index, part) in self.parts.iter().enumerate() {
            let id = format!("SPDXRef-Part-{index}");
            let mut of_part = package(&id, &part.name, &part.version, part.licence.as_deref());
            of_part["externalRefs"] = json!([{
                "referenceCategory": "PACKAGE-MANAGER", "referenceType": "purl", "referenceLocator": part.purl,
            }]);
            if let Some(sha256) = part.sha256 {
                of_part["checksums"] = json!([{ "algorithm": "SHA256", "checksumValue": sha256 }]);
            }
            packages.push(of_part);
            relationships.push(relationship(main, "STATIC_LINK", &id));
        }
        let hash = Sha256::of(json!([self.created, packages]).to_string());
        json!({
            "spdxVersion": "SPDX-2.3", "dataLicense": "CC0-1.0", "SPDXID": "SPDXRef-DOCUMENT", "name": self.name,
            // It has to be unique; nothing is published there.
            "documentNamespace": format!("https://spdx.org/spdxdocs/{}-{hash}", self.name),
            "creationInfo": { "created": self.created, "creators": [concat!("Tool: qus-", env!("CARGO_PKG_VERSION"))] },
            "packages": packages, "relationships": relationships,
        })
    }

    fn cyclonedx(&self) -> Value {
        let component = |part: &Part| {
            let mut component = json!({
                "type": "library", "bom-ref": part.purl, "name": part.name, "version": part.version, "purl": part.purl,
            });
            if let Some(licence) = &part.licence {
                component["licenses"] = json!([{ "expression": licence }]);
            }
            if let Some(sha256) = part.sha256 {
                component["hashes"] = json!([{ "alg": "SHA-256", "content": sha256 }]);
            }
            component
        };
        let purls: Vec<_> = self.parts.iter().map(|part| &part.purl).collect();
        json!({
            "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
            "bomFormat": "CycloneDX", "specVersion": "1.6", "version": 1,
            "metadata": {
                "timestamp": self.created,
                "component": {
                    "type": "application", "bom-ref": self.name, "name": self.name, "version": self.version,
                },
            },
            "components": self.parts.iter().map(component).collect::<Vec<_>>(),
            "dependencies": [{ "ref": self.name, "dependsOn": purls }],
        })
    }
}

fn relationship(of: &str, kind: &str, to: &str) -> Value {
    json!({ "spdxElementId": of, "relationshipType": kind, "relatedSpdxElement": to })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_name_every_part() {
        let part = |name: &str, licence: Option<&str>| Part {
            name: name.to_owned(),
            version: "1".to_owned(),
            purl: format!("pkg:generic/{name}@1"),
            licence: licence.map(str::to_owned),
            sha256: licence.map(|_| Sha256::of(name)),
        };
        let parts = [part("a", Some("MIT")), part("b", None)];
        let created = Date::of(0).iso();
        let material = Material { name: "x_1-1_amd64".into(), version: "1-1".into(), parts: &parts, created };
        let spdx = material.spdx();
        assert_eq!(spdx["packages"].as_array().unwrap().len(), 3);
        assert_eq!(spdx["packages"][1]["licenseDeclared"], "MIT");
        assert_eq!(spdx["packages"][2]["licenseDeclared"], "NOASSERTION");
        assert_eq!(spdx["relationships"].as_array().unwrap().len(), 3);
        let cyclonedx = material.cyclonedx();
        assert_eq!(cyclonedx["components"][0]["hashes"][0]["content"], Sha256::of("a").to_string());
        assert_eq!(cyclonedx["dependencies"][0]["dependsOn"][1], "pkg:generic/b@1");
    }
}
