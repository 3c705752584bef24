/* SPDX-License-Identifier: Apache-2.0 */
/* What the parts of the simulator share: instructions, memory, and where cycles go. */
#ifndef MCUFORGE_CYCLES_MODEL_H
#define MCUFORGE_CYCLES_MODEL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define MOST_OPERANDS 20
#define REGISTERS 64
#define FLAGS 16
#define GREATER_EQUAL 17
#define NO_REGISTER 255

/* In the order of CLASSES, STAGES and BRANCHES of decode.py. */
enum class {
    ALU,
    MULTIPLY,
    DSP,
    LOAD,
    STORE,
    MULTIPLE,
    BRANCH,
    IT,
    FLOAT,
    DIVIDE,
    NOP,
    MOVE_HALF,
};
enum stage { STAGE_EARLY, STAGE_LATE, STAGE_MULTIPLY, STAGE_ACCUMULATE, STAGE_STORE, STAGES };
enum branch { NO_BRANCH, DIRECT, CONDITIONAL, CALL, INDIRECT, INDIRECT_CALL, RETURN };

/* An instruction as decode.py describes it; its attributes are explained there. */
struct instruction {
    uint32_t address;
    uint8_t size, class, shifter, early, count, width, stores, branch, writeback;
    uint8_t sources, destinations, reserved;
    uint8_t source[MOST_OPERANDS], stage[MOST_OPERANDS], destination[MOST_OPERANDS];
};

/* What a branch predictor knows of the instruction at an address. */
struct prediction {
    uint32_t target; /* the last one of an indirect branch */
    uint8_t counter; /* of a conditional branch: taken if 2 or 3 */
};

/* Cycles of some instructions, by cause: those from issue to branches add up to all cycles. */
struct costs {
    uint64_t instructions;
    uint64_t issue;
    uint64_t dependency;
    uint64_t fetch;
    uint64_t data_misses;
    uint64_t instruction_misses;
    uint64_t branches;
    uint64_t multiples; /* of issue, those of multiple loads and stores */
    uint64_t floats;    /* of instructions, those that compute in floating point */
};

/* An instruction that was executed, with the first address it accessed, 0 if none. */
struct executed {
    const struct instruction *what;
    struct prediction *prediction;
    struct costs *costs;
    uint32_t address;
};

/* Of a core, by the names cores.py gives them. */
struct core {
    int64_t dual_issue;         /* 1: model of two in-order pipelines; 0: a table of cycles */
    int64_t fetch_bytes;        /* bytes fetched a cycle */
    int64_t fetch_queue;        /* bytes that wait at most to be issued */
    int64_t misprediction;      /* cycles of a mispredicted branch */
    int64_t early_flags;        /* of these, saved when its flags were there early */
    int64_t taken_branch;       /* cycles of a taken branch where none is predicted */
    int64_t multiple_registers; /* registers a multiple load or store moves a cycle */
    int64_t multiple_setup;     /* cycles it takes besides */
    int64_t load_unaligned;     /* more cycles of a load that is not aligned */
    int64_t divide;             /* more cycles of a division */
    int64_t load_alone;         /* more cycles of a load that follows no load */
};

extern struct core core;

/* Simulate the first of the executed instructions, of which `known` are known and the next one's
 * address is. Returns how many it issued: two that pair, or one. */
size_t dual_issue(const struct executed *executed, size_t known, uint32_t next);
size_t single_issue(const struct executed *executed, size_t known, uint32_t next);

/* memory.c: cycles lost to misses, for a fetch and for the accesses of an instruction. */
int64_t fetch_miss(const struct instruction *what);
int64_t data_miss(const struct executed *executed);

/* Set up by name, as in `data_cache=16384/4` or `memory=0x08000000/0x200000/12`. False if it is
 * none of memory's. */
bool memory_option(const char *name, const char *value);

#endif
