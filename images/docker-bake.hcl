# Kinds of images and what all of them have in common. Which hosts, tags, platforms and labels there are follows
# from the table of architectures: `cargo xtask images` adds targets that inherit from these, and
# `cargo xtask images --dry-run --json` shows them.

variable "SOURCE_DATE_EPOCH" {
  default = "0"
}

target "common" {
  context    = "."
  dockerfile = "Dockerfile"
  args       = { SOURCE_DATE_EPOCH = SOURCE_DATE_EPOCH }
}

# The emulators, for others to copy from.
target "pkg" {
  inherits = ["common"]
  target   = "pkg"
}

# The program alone; emulators come from QEMU_BIN_DIR.
target "register" {
  inherits = ["common"]
  target   = "register"
}

# Both.
target "full" {
  inherits = ["common"]
  target   = "full"
}

# The program and one emulator: the same with a smaller context.
target "guest" {
  inherits = ["full"]
}
