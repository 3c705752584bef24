/* SPDX-License-Identifier: Apache-2.0 */
/* Two in-order pipelines, as of the Cortex-M7: docs/cycles.md has the rules and their sources. */
#include "model.h"

#define CALLS 8 /* return addresses the predictor remembers */

static int64_t now;                          /* the next cycle in which something can issue */
static int64_t available[REGISTERS][STAGES]; /* first cycle of issue that may use it there */
static struct {
    int64_t time, fetched, consumed; /* bytes since the last taken branch, and until when */
} queue;
static uint32_t calls[CALLS];
static size_t call_count;

static int64_t later(int64_t a, int64_t b) { return a > b ? a : b; }

static int64_t operands_ready(const struct instruction *what) {
    int64_t ready = 0;
    for (size_t i = 0; i < what->sources; i++) {
        ready = later(ready, available[what->source[i]][what->stage[i]]);
    }
    return ready;
}

static bool operands_early(const struct instruction *what, int64_t cycle) {
    for (size_t i = 0; i < what->sources; i++) {
        if (available[what->source[i]][STAGE_EARLY] > cycle) {
            return false;
        }
    }
    return true;
}

static void set(uint8_t which, int64_t early, int64_t late, int64_t multiply, int64_t accumulate,
                int64_t store) {
    int64_t *stages = available[which];
    stages[STAGE_EARLY] = early;
    stages[STAGE_LATE] = late;
    stages[STAGE_MULTIPLY] = multiply;
    stages[STAGE_ACCUMULATE] = accumulate;
    stages[STAGE_STORE] = store;
}

/* Whether an arithmetic result leaves the first of the two arithmetic units, a cycle earlier. */
static bool arithmetic_early(const struct instruction *what, int64_t cycle, bool older,
                             bool other_shifts) {
    if (what->class == MOVE_HALF || what->early == 1) {
        return older && operands_early(what, cycle);
    }
    if (what->early == 2) {
        return !other_shifts && operands_early(what, cycle);
    }
    return what->early == 3;
}

/* Note when the results of an instruction that issues in this cycle are where. */
static void write_results(const struct instruction *what, int64_t cycle, bool older,
                          bool other_shifts) {
    if (what->writeback != NO_REGISTER) {
        set(what->writeback, cycle + 1, cycle + 1, cycle + 1, cycle, cycle);
    }
    for (size_t i = 0; i < what->destinations; i++) {
        uint8_t which = what->destination[i];
        int64_t t = what->class == MULTIPLE ? cycle + (int64_t)(i / 2) : cycle;
        if (which == FLAGS || which == GREATER_EQUAL) {
            set(which, t + 2, t + 1, t + 1, t + 1, t + 1);
        } else if (what->class == MULTIPLY || (what->class == LOAD && what->width != 4)) {
            set(which, t + 3, t + 2, t + 2, t + 1, t);
        } else if (what->class == LOAD || what->class == MULTIPLE) {
            set(which, t + 2, t + 1, t + 2, t + 1, t);
        } else if (what->class == FLOAT) {
            set(which, t + 4, t + 3, t + 3, t + 3, t + 2);
        } else if (what->class == DIVIDE) {
            set(which, t + 10, t + 9, t + 9, t + 9, t + 9);
        } else if (arithmetic_early(what, t, older, other_shifts)) {
            set(which, t + 1, t, t, t, t);
        } else {
            set(which, t + 2, t + 1, t + 1, t, t);
        }
    }
}

/* Whether the predictor knew where a branch goes; it learns it. */
static bool predicted(const struct executed *executed, uint32_t next) {
    const struct instruction *what = executed->what;
    struct prediction *known = executed->prediction;
    bool right = true;
    if (what->branch == CONDITIONAL) {
        bool taken = next != what->address + what->size;
        right = (known->counter >= 2) == taken;
        int step = taken ? known->counter < 3 : -(known->counter > 0);
        known->counter = (uint8_t)(known->counter + step);
    } else if (what->branch == RETURN && call_count) {
        right = calls[--call_count] == next;
    } else if (what->branch >= INDIRECT) {
        right = known->target == next;
        known->target = next;
    }
    if (what->branch == CALL || what->branch == INDIRECT_CALL) {
        if (call_count == CALLS) {
            for (size_t i = 1; i < CALLS; i++) {
                calls[i - 1] = calls[i];
            }
            call_count--;
        }
        calls[call_count++] = what->address + what->size;
    }
    return right;
}

/* Cycles lost to the branch that issues in this cycle, if it is one. `taken` becomes whether
 * fetching starts anew. */
static int64_t follow(const struct executed *executed, uint32_t next, int64_t cycle, bool *taken) {
    const struct instruction *what = executed->what;
    int64_t lost = 0;
    *taken = false;
    if (what->branch == NO_BRANCH) {
        return 0;
    }
    *taken = next != what->address + what->size;
    if (!predicted(executed, next)) {
        bool early = available[FLAGS][STAGE_LATE] + 2 <= cycle;
        lost = core.misprediction - (early ? core.early_flags : 0);
        *taken = true;
    }
    if (*taken) {
        queue.consumed = 0;
        queue.fetched = core.fetch_bytes - next % core.fetch_bytes;
        queue.time = cycle + 1 + lost;
    }
    return lost;
}

/* The cycle, not before `cycle`, in which the bytes of an instruction are there. */
static int64_t fetched(const struct instruction *what, int64_t cycle) {
    while (queue.fetched < queue.consumed + what->size) {
        queue.time++;
        queue.fetched += core.fetch_bytes;
    }
    cycle = later(cycle, queue.time);
    if (cycle > queue.time) {
        int64_t more = queue.fetched + core.fetch_bytes * (cycle - queue.time);
        int64_t most = queue.consumed + core.fetch_queue;
        queue.fetched = more < most ? more : most;
        queue.time = cycle;
    }
    return cycle;
}

static bool misaligned(const struct executed *executed) {
    const struct instruction *what = executed->what;
    uint32_t bytes = what->class == MULTIPLE ? 4 : what->width > 4 ? 4 : what->width;
    return bytes > 1 && executed->address % bytes;
}

/* Whether the second can issue together with the first, in this cycle. */
static bool pairs(const struct executed *first, const struct executed *second, int64_t cycle) {
    const struct instruction *a = first->what, *b = second->what;
    if (b->class == MULTIPLE || b->class == DIVIDE || b->class == DSP || misaligned(second) ||
        ((a->class == MULTIPLY || a->class == STORE) &&
         (b->class == MULTIPLY || b->class == STORE)) ||
        (a->shifter && b->shifter == 1) || (a->class == BRANCH && b->class == BRANCH) ||
        (a->class == FLOAT && b->class == FLOAT)) {
        return false;
    }
    /* Two loads pair if they read different banks of the memory. */
    if (a->class == LOAD && b->class == LOAD && !((first->address ^ second->address) & 4)) {
        return false;
    }
    for (size_t i = 0; i < a->destinations && a->class != MOVE_HALF; i++) {
        for (size_t k = 0; k < b->destinations; k++) {
            if (a->destination[i] == b->destination[k] && a->destination[i] != FLAGS) {
                return false;
            }
        }
    }
    bool constant = a->class == MOVE_HALF && b->class == MOVE_HALF; /* MOVW, MOVT */
    return (constant || operands_ready(b) <= cycle) && queue.fetched >= queue.consumed + b->size;
}

size_t dual_issue(const struct executed *executed, size_t known, uint32_t next) {
    const struct instruction *what = executed->what;
    struct costs *costs = executed->costs;
    uint32_t after = known > 1 ? executed[1].what->address : next;
    int64_t cycle = later(now, operands_ready(what));
    costs->dependency += (uint64_t)(cycle - now);
    int64_t there = fetched(what, cycle);
    costs->fetch += (uint64_t)(there - cycle);
    int64_t instruction_stall = fetch_miss(what);
    costs->instruction_misses += (uint64_t)instruction_stall;
    cycle = there + instruction_stall;
    queue.time = instruction_stall ? later(queue.time, cycle) : queue.time;
    int64_t stall = data_miss(executed), busy = 1;
    costs->data_misses += (uint64_t)stall;
    queue.consumed += what->size;
    costs->instructions++;
    costs->floats += what->class == FLOAT;

    bool multiple = what->class == MULTIPLE;
    if (multiple) {
        busy = (what->count + core.multiple_registers - 1) / core.multiple_registers;
    }
    busy += misaligned(executed) && what->class != STORE ? core.load_unaligned : 0;
    busy += what->class == DIVIDE ? core.divide : 0;
    write_results(what, cycle + stall + (multiple ? 0 : busy - 1), true, false);
    bool taken;
    int64_t lost = follow(executed, after, multiple ? cycle + busy + stall - 1 : cycle, &taken);
    costs->branches += (uint64_t)lost;
    costs->issue += (uint64_t)busy;
    costs->multiples += multiple ? (uint64_t)busy : 0;
    now = cycle + busy + stall + lost;

    if (known < 2 || multiple || busy > 1 || stall || lost || taken ||
        !pairs(&executed[0], &executed[1], cycle)) {
        return 1;
    }
    const struct executed *second = &executed[1];
    stall = data_miss(second);
    second->costs->data_misses += (uint64_t)stall;
    second->costs->instructions++;
    second->costs->floats += second->what->class == FLOAT;
    queue.consumed += second->what->size;
    write_results(second->what, cycle + stall, false, what->shifter != 0);
    lost = follow(second, next, cycle, &taken);
    second->costs->branches += (uint64_t)lost;
    now += stall + lost;
    return 2;
}
