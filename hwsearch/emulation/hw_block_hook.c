/* Counts what an emulated core executes; called by unicorn, on the computer that emulates, once per basic block.
 *
 * Counting only: what the counts cost in cycles is decided in `cycle_model.py`. `block_counts.py` holds the same code in Python.
 */
#include <stdint.h>

#define HW_MAX_LINES 1024

/* A cache with least-recently-used replacement. n_lines == 0: there is none, every access counts as hit; ways == n_lines: fully
 * associative. Lines of one set lie side by side. */
typedef struct hw_cache {
    uint32_t line_bytes, n_lines, last_line, ways;
    uint64_t clock, misses;
    uint64_t used[HW_MAX_LINES]; /* clock of the last use of each line */
    uint32_t line[HW_MAX_LINES]; /* line number + 1; 0 is empty */
} hw_cache;

/* uc_reg_read and uc_reg_write */
typedef int (*hw_register)(void *engine, int register_id, void *value);

typedef struct hw_counts {
    uint32_t code_start, n_halfwords;   /* window of the flash in which code lies */
    uint32_t flash_start, flash_bytes;  /* window whose reads go through the data cache */
    uint32_t previous, previous_end;    /* last block: index of its first halfword, address after it; 0 before the first */
    uint64_t outside;                   /* blocks outside the code window */
    uint64_t resized;                   /* blocks seen again with another size */
    uint64_t unaligned;                 /* accesses not aligned to their own size */
    uint64_t *executed;                 /* [n_halfwords] executions of the block that starts here */
    uint64_t *left;                     /* [n_halfwords] of those, how many ended in a taken branch */
    uint64_t *entered;                  /* [n_halfwords] how many were reached by a taken branch */
    uint32_t *block_bytes;              /* [n_halfwords] size of the block that starts here */
    hw_register read_register, write_register;
    uint32_t status_register, reserved; /* unicorn's number of CPSR; 0: not Arm */
    hw_cache code, data;
} hw_counts;

static int touch(hw_cache *cache, uint32_t line)
{
    if (!cache->n_lines)
        return 1;
    uint32_t first = line % (cache->n_lines / cache->ways) * cache->ways, oldest = first;
    ++cache->clock;
    for (uint32_t i = first; i < first + cache->ways; ++i) {
        if (cache->line[i] == line + 1) {
            cache->used[i] = cache->clock;
            return 1;
        }
        if (cache->used[i] < cache->used[oldest])
            oldest = i;
    }
    cache->line[oldest] = line + 1;
    cache->used[oldest] = cache->clock;
    return 0;
}

/* A line that follows the one fetched last has been prefetched: it replaces another but costs no wait. */
static void fetch(hw_cache *cache, uint32_t address, uint32_t size)
{
    uint32_t line = address / cache->line_bytes;
    uint32_t last = (address + size - 1) / cache->line_bytes;
    for (; line <= last; ++line) {
        if (line == cache->last_line)
            continue;
        if (!touch(cache, line) && line != cache->last_line + 1)
            ++cache->misses;
        cache->last_line = line;
    }
}

void hw_count_block(void *engine, uint64_t address, uint32_t size, void *user);
void hw_count_access(void *engine, int type, uint64_t address, int size, int64_t value, void *user);

void hw_count_block(void *engine, uint64_t address, uint32_t size, void *user)
{
    hw_counts *counts = user;
    uint32_t start = (uint32_t)address, index = (start - counts->code_start) / 2;
    (void)engine;
    if (index >= counts->n_halfwords) {
        ++counts->outside;
        return;
    }
    if (counts->previous_end != start) {
        if (counts->previous_end)
            ++counts->left[counts->previous];
        ++counts->entered[index];
    }
    counts->resized += counts->block_bytes[index] != 0 && counts->block_bytes[index] != size;
    counts->block_bytes[index] = size;
    ++counts->executed[index];
    counts->previous = index;
    counts->previous_end = start + size;
    if (counts->code.n_lines)
        fetch(&counts->code, start, size);
}

/* Unicorn 2.1 restores the state inside an IT block before it calls a hook for a conditional access, and forgets to clear
 * it: the block after a branch would then run as if it were conditional. */
static void clear_it_state(void *engine, const hw_counts *counts)
{
    uint32_t status = 0;
    counts->read_register(engine, (int)counts->status_register, &status);
    if (status & 0x0600FC00u) {
        status &= ~0x0600FC00u;
        counts->write_register(engine, (int)counts->status_register, &status);
    }
}

void hw_count_access(void *engine, int type, uint64_t address, int size, int64_t value, void *user)
{
    hw_counts *counts = user;
    uint32_t start = (uint32_t)address;
    (void)type, (void)value;
    if (counts->status_register)
        clear_it_state(engine, counts);
    counts->unaligned += (start & ((uint32_t)size - 1)) != 0;
    if (start - counts->flash_start < counts->flash_bytes && counts->data.n_lines)
        counts->data.misses += !touch(&counts->data, start / counts->data.line_bytes);
}
