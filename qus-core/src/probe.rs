//! One tiny static program for each architecture, small enough to carry all of them along.
//!
//! A probe writes one line that names its architecture and exits with [`STATUS`], a value that no
//! failing loader or shell returns by chance. Running it is the only honest answer to "does this
//! machine run that architecture", with or without an emulator. The sources are in `probes/`, the
//! bytes beside them are made by `cargo xtask codegen`.

use crate::arch::Arch;

/// Exit status of every probe.
pub const STATUS: i32 = 42;

/// The probe's ELF file.
pub fn image(arch: &Arch) -> &'static [u8] {
    IMAGES.iter().find(|(name, _)| *name == arch.name).expect("a unit test finds one for every row").1
}

/// What the probe writes to its standard output.
pub fn line(arch: &Arch) -> String {
    format!("qus-probe {}\n", arch.name)
}

macro_rules! images {
    ($($name:literal)*) => {
        [$(($name, include_bytes!(concat!("../probes/", $name, ".elf")))),*]
    };
}

static IMAGES: [(&str, &[u8]); 33] = images! {
    "aarch64" "aarch64_be" "alpha" "arm" "armeb" "hexagon" "hppa" "i386" "loongarch64" "m68k"
    "microblaze" "microblazeel" "mips" "mips64" "mips64el" "mipsel" "mipsn32" "mipsn32el" "or1k"
    "ppc" "ppc64" "ppc64le" "riscv32" "riscv64" "s390x" "sh4" "sh4eb" "sparc" "sparc32plus"
    "sparc64" "x86_64" "xtensa" "xtensaeb"
};

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arch::ARCHES;

    #[test]
    fn all_of_them_are_small_and_name_themselves() {
        let total: usize = ARCHES.iter().map(|arch| image(arch).len()).sum();
        assert!(total < 16 * 1024, "{total} bytes");
        for arch in &ARCHES {
            let line = line(arch);
            assert!(image(arch).windows(line.len()).any(|part| part == line.as_bytes()), "{arch}");
        }
    }
}
