//! The table of architectures itself: a row for each of QEMU's linux-user targets.
//!
//! Sources: names from QEMU's `configs/targets/*-linux-user.mak`; machine numbers and flags from the
//! ELF registry and QEMU's `include/elf.h`; platforms from the OCI image specification and Go's
//! `GOARCH`; Debian's names from its port list.

use super::row::Arch;
use super::row::Class::{Elf32, Elf64};
use super::row::Endian::{Big, Little};
use super::row::FlagBits;

/// All of them, in the order of their names.
pub static ARCHES: [Arch; 33] = [
    Arch::new("aarch64", Elf64, Little, &[183], &["aarch64-linux-gnu"])
        .official(&["arm64", "arm64/v8"])
        .debian(&["arm64"])
        .aliases(&["arm64v8", "armv8"])
        .processor("Neoverse N1"),
    Arch::new("aarch64_be", Elf64, Big, &[183], &["aarch64_be-linux-gnu"])
        .platforms(&["arm64be"])
        .aliases(&["arm64_be"]),
    Arch::new("alpha", Elf64, Little, &[0x9026], &["alpha-linux-gnu"]).debian(&["alpha"]),
    Arch::new("arm", Elf32, Little, &[40], &["arm-linux-gnueabihf", "arm-linux-gnueabi"])
        .official(&["arm", "arm/v7", "arm/v6", "arm/v5"])
        .debian(&["armhf", "armel"])
        .aliases(&[
            "arm32v7",
            "arm32v6",
            "arm32v5",
            "armv7",
            "armv6",
            "armv5",
            "armv8l",
            "armv7l",
            "armv6l",
            "armv5l",
            "armv5tel",
            "armv5tejl",
            "armv7hl",
            "armv7hnl",
            "armhfp",
        ]),
    Arch::new("armeb", Elf32, Big, &[40], &["armeb-linux-gnueabi"])
        .platforms(&["armbe"])
        .debian(&["armeb"])
        .aliases(&["armv7b", "armv6b", "armv5teb", "armv8b"]),
    Arch::new("hexagon", Elf32, Little, &[164], &["hexagon-unknown-linux-musl"]),
    Arch::new("hppa", Elf32, Big, &[15], &["hppa-linux-gnu"])
        .registers_64_bit()
        .debian(&["hppa"])
        .aliases(&["parisc", "parisc64", "hppa1.1", "hppa2.0"]),
    // EM_486 (6) was never in wide use, but the kernel and QEMU accept it.
    Arch::new("i386", Elf32, Little, &[3, 6], &["i386-linux-gnu", "i686-linux-gnu"])
        .official(&["386"])
        .debian(&["i386"])
        .aliases(&["i486", "i586", "i686", "x86", "ia32"]),
    Arch::new("loongarch64", Elf64, Little, &[258], &["loongarch64-linux-gnu"])
        .official(&["loong64"])
        .debian(&["loong64"])
        .aliases(&["loongarch"]),
    Arch::new("m68k", Elf32, Big, &[4], &["m68k-linux-gnu"]).debian(&["m68k"]),
    // Tools wrote 0xBAAB before the registry assigned 189.
    Arch::new("microblaze", Elf32, Big, &[189, 0xBAAB], &["microblaze-linux-gnu"]),
    Arch::new("microblazeel", Elf32, Little, &[189, 0xBAAB], &["microblazeel-linux-gnu"]),
    Arch::new("mips", Elf32, Big, &[8], &["mips-linux-gnu"])
        .flags(FlagBits::O32)
        .platforms(&["mips"])
        .debian(&["mips"]),
    Arch::new("mips64", Elf64, Big, &[8], &["mips64-linux-gnuabi64"])
        .platforms(&["mips64"])
        .debian(&["mips64"]),
    Arch::new("mips64el", Elf64, Little, &[8], &["mips64el-linux-gnuabi64"])
        .official(&["mips64le"])
        .debian(&["mips64el"]),
    Arch::new("mipsel", Elf32, Little, &[8], &["mipsel-linux-gnu"])
        .flags(FlagBits::O32)
        .platforms(&["mipsle"])
        .debian(&["mipsel"]),
    Arch::new("mipsn32", Elf32, Big, &[8], &["mips64-linux-gnuabin32"])
        .flags(FlagBits::N32)
        .registers_64_bit()
        .platforms(&["mips64p32"])
        .debian(&["mipsn32"]),
    Arch::new("mipsn32el", Elf32, Little, &[8], &["mips64el-linux-gnuabin32"])
        .flags(FlagBits::N32)
        .registers_64_bit()
        .platforms(&["mips64p32le"])
        .debian(&["mipsn32el"]),
    Arch::new("or1k", Elf32, Big, &[92], &["or1k-linux-gnu"]).debian(&["or1k"]).aliases(&["openrisc"]),
    Arch::new("ppc", Elf32, Big, &[20], &["powerpc-linux-gnu"]).platforms(&["ppc"]).debian(&["powerpc"]),
    Arch::new("ppc64", Elf64, Big, &[21], &["powerpc64-linux-gnu"])
        .platforms(&["ppc64"])
        .debian(&["ppc64"])
        .aliases(&["powerpc64"]),
    Arch::new("ppc64le", Elf64, Little, &[21], &["powerpc64le-linux-gnu"])
        .official(&["ppc64le"])
        .debian(&["ppc64el"])
        .aliases(&["powerpc64le"]),
    Arch::new("riscv32", Elf32, Little, &[243], &["riscv32-linux-gnu"])
        .platforms(&["riscv"])
        .aliases(&["rv32"]),
    Arch::new("riscv64", Elf64, Little, &[243], &["riscv64-linux-gnu"])
        .official(&["riscv64"])
        .debian(&["riscv64"])
        .aliases(&["rv64"])
        .processor("RVA23 profile"),
    Arch::new("s390x", Elf64, Big, &[22], &["s390x-linux-gnu"]).official(&["s390x"]).debian(&["s390x"]),
    Arch::new("sh4", Elf32, Little, &[42], &["sh4-linux-gnu"]).debian(&["sh4"]).aliases(&["sh4a"]),
    Arch::new("sh4eb", Elf32, Big, &[42], &["sh4eb-linux-gnu"]).debian(&["sh4eb"]).aliases(&["sh4aeb"]),
    Arch::new("sparc", Elf32, Big, &[2], &["sparc-linux-gnu"]).platforms(&["sparc"]).debian(&["sparc"]),
    Arch::new("sparc32plus", Elf32, Big, &[18], &["sparc32plus-linux-gnu"])
        .registers_64_bit()
        .aliases(&["sparcv8plus"]),
    Arch::new("sparc64", Elf64, Big, &[43], &["sparc64-linux-gnu"])
        .platforms(&["sparc64"])
        .debian(&["sparc64"])
        .aliases(&["sparcv9"]),
    Arch::new("x86_64", Elf64, Little, &[62], &["x86_64-linux-gnu"])
        .official(&["amd64", "amd64/v1", "amd64/v2", "amd64/v3", "amd64/v4"])
        .debian(&["amd64"])
        .aliases(&["x86-64", "x64"]),
    Arch::new("xtensa", Elf32, Little, &[94], &["xtensa-linux-gnu"]),
    Arch::new("xtensaeb", Elf32, Big, &[94], &["xtensaeb-linux-gnu"]),
];
