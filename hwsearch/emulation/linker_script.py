"""Where things lie in a linked image: the memory map, and how the linker fills it."""

FLASH_START, FLASH_BYTES = 0x0800_0000, 2048 * 1024
RAM_START, RAM_BYTES = 0x2000_0000, 640 * 1024
"""The memory map is one for all cores, that of the largest board."""

SECTION_ALIGNMENT = 32
"""Bytes at whose multiples every function and table begins in a linked image: a line of the largest flash cache.

So each occupies the same wherever it lies, sizes of parts add up to that of the whole, and no table shares a line.
"""
BUILTINS_BEGIN, BUILTINS_END = "hw_builtins_begin", "hw_builtins_end"
"""Symbols around what the compiler's own library adds: divisions, wide products, memset."""

LINKER_SCRIPT = f"""\
MEMORY {{
  FLASH (rx) : ORIGIN = {FLASH_START:#x}, LENGTH = {FLASH_BYTES // 1024}K
  RAM (rwx) : ORIGIN = {RAM_START:#x}, LENGTH = {RAM_BYTES // 1024}K
}}
SECTIONS {{
  .text : SUBALIGN({SECTION_ALIGNMENT}) {{
    {BUILTINS_BEGIN} = .;
    *compiler_rt*(.text .text.*)
    *libgcc*(.text .text.*)
    . = ALIGN({SECTION_ALIGNMENT});
    {BUILTINS_END} = .;
    *(.text .text.*)
    . = ALIGN({SECTION_ALIGNMENT});
  }} >FLASH
  .rodata : SUBALIGN({SECTION_ALIGNMENT}) {{ *(.rodata .rodata.* .srodata .srodata.*) . = ALIGN({SECTION_ALIGNMENT}); }} >FLASH
  .data : {{ . = ALIGN(8); *(.data .data.* .sdata .sdata.*) }} >RAM
  .bss (NOLOAD) : {{ . = ALIGN(8); *(.bss .bss.* .sbss .sbss.*) *(COMMON) }} >RAM
  /DISCARD/ : {{ *(.ARM.exidx*) *(.ARM.extab*) *(.eh_frame*) *(.comment) }}
}}
"""
