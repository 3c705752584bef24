/* SPDX-License-Identifier: Apache-2.0 */
/* Caches with lines of 32 bytes, least recently used first out, and what a line of each memory
 * costs. A memory that is not described costs nothing and is not cached: tightly coupled, or as
 * fast as the core. */
#include <stdlib.h>
#include <string.h>

#include "model.h"

#define LINE 32u
#define MEMORIES 16
#define SYSTEM 0xE0000000u /* from here on there are registers, not memory */

struct cache {
    uint32_t sets, ways;
    uint32_t *line; /* number of the line in each way of each set, plus one; 0: none */
    uint64_t *used; /* when */
    uint64_t time;
};

static struct cache data, code;
static struct {
    uint32_t origin, size;
    int64_t line_cycles;
} memories[MEMORIES];
static size_t memory_count;

/* The cost of a line from memory; 0 where it is not cached. */
static int64_t line_cycles(uint32_t address) {
    for (size_t i = 0; i < memory_count; i++) {
        if (address - memories[i].origin < memories[i].size) {
            return memories[i].line_cycles;
        }
    }
    return 0;
}

/* Whether the line of an address is there; it is from now on. */
static bool hit(struct cache *cache, uint32_t address) {
    uint32_t line = address / LINE;
    uint32_t *lines = cache->line + (size_t)(line % cache->sets) * cache->ways;
    uint64_t *used = cache->used + (lines - cache->line);
    uint32_t oldest = 0;
    for (uint32_t way = 0; way < cache->ways; way++) {
        if (lines[way] == line + 1) {
            used[way] = ++cache->time;
            return true;
        }
        oldest = used[way] < used[oldest] ? way : oldest;
    }
    lines[oldest] = line + 1;
    used[oldest] = ++cache->time;
    return false;
}

/* Cycles lost for the lines of `size` bytes. Without a cache every access costs a line. */
static int64_t misses(struct cache *cache, uint32_t address, uint32_t size) {
    int64_t cycles = 0;
    for (uint32_t line = address / LINE; line <= (address + size - 1) / LINE; line++) {
        int64_t cost = line_cycles(line * LINE);
        if (cost && (cache->sets == 0 || !hit(cache, line * LINE))) {
            cycles += cost;
        }
    }
    return cycles;
}

int64_t fetch_miss(const struct instruction *what) {
    return misses(&code, what->address, what->size);
}

int64_t data_miss(const struct executed *executed) {
    const struct instruction *what = executed->what;
    if (executed->address == 0 || executed->address >= SYSTEM) {
        return 0;
    }
    uint32_t size = what->class == MULTIPLE ? 4u * what->count : 1u;
    int64_t cycles = misses(&data, executed->address, size);
    return what->stores ? 0 : cycles; /* a write buffer waits for the line, the core does not */
}

static bool set_cache(struct cache *cache, const char *value) {
    char *end;
    uint32_t size = (uint32_t)strtoul(value, &end, 0);
    cache->ways = (uint32_t)strtoul(end + (*end == '/'), NULL, 0);
    cache->sets = cache->ways ? size / LINE / cache->ways : 0;
    size_t lines = (size_t)cache->sets * cache->ways;
    cache->line = calloc(lines + 1, sizeof *cache->line);
    cache->used = calloc(lines + 1, sizeof *cache->used);
    return cache->line && cache->used;
}

bool memory_option(const char *name, const char *value) {
    if (strcmp(name, "data_cache") == 0) {
        return set_cache(&data, value);
    }
    if (strcmp(name, "instruction_cache") == 0) {
        return set_cache(&code, value);
    }
    if (strcmp(name, "memory") == 0 && memory_count < MEMORIES) {
        char *end;
        memories[memory_count].origin = (uint32_t)strtoul(value, &end, 0);
        memories[memory_count].size = (uint32_t)strtoul(end + (*end == '/'), &end, 0);
        memories[memory_count++].line_cycles = strtol(end + (*end == '/'), NULL, 0);
        return true;
    }
    return false;
}
