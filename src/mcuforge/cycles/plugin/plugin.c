/* SPDX-License-Identifier: Apache-2.0 */
/* A plugin of QEMU's user mode emulation that simulates a core on what the emulator executes.
 *
 * Between the instruction at `begin` and the one at `end`, every executed instruction goes through
 * the model. At `end` the cycles so far are written and counting starts anew: the last round's, in
 * which caches and predictors know the program, are what stays. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model.h"

/* The part of QEMU's plugin API, version 1, that is used here:
 * https://www.qemu.org/docs/master/devel/tcg-plugins.html */
#define PUBLIC __attribute__((visibility("default")))
#define NO_REGISTERS 0
#define READ_AND_WRITE 3
struct qemu_plugin_tb;
struct qemu_plugin_insn;
extern void qemu_plugin_register_vcpu_tb_trans_cb(uint64_t plugin,
                                                  void (*call)(uint64_t, struct qemu_plugin_tb *));
extern size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *block);
extern struct qemu_plugin_insn *qemu_plugin_tb_get_insn(const struct qemu_plugin_tb *block,
                                                        size_t index);
extern uint64_t qemu_plugin_insn_vaddr(const struct qemu_plugin_insn *instruction);
extern void qemu_plugin_register_vcpu_insn_exec_cb(struct qemu_plugin_insn *instruction,
                                                   void (*call)(unsigned, void *), int registers,
                                                   void *argument);
extern void qemu_plugin_register_vcpu_mem_cb(struct qemu_plugin_insn *instruction,
                                             void (*call)(unsigned, uint32_t, uint64_t, void *),
                                             int registers, int accesses, void *argument);
PUBLIC int qemu_plugin_version = 1;
PUBLIC int qemu_plugin_install(uint64_t plugin, const void *machine, int count, char **options);

/* An instruction of the program and what is to be known when it is executed. */
struct slot {
    struct instruction what;
    struct prediction prediction;
    bool starts_kernel; /* the first instruction of a kernel */
    bool calls_kernels; /* in the function that calls them */
};

struct core core;
static const struct {
    const char *name;
    int64_t *value;
} numbers[] = {
    {"dual_issue", &core.dual_issue},
    {"fetch_bytes", &core.fetch_bytes},
    {"fetch_queue", &core.fetch_queue},
    {"misprediction", &core.misprediction},
    {"early_flags", &core.early_flags},
    {"taken_branch", &core.taken_branch},
    {"multiple_registers", &core.multiple_registers},
    {"multiple_setup", &core.multiple_setup},
    {"load_unaligned", &core.load_unaligned},
    {"divide", &core.divide},
    {"load_alone", &core.load_alone},
};

static struct slot *slots;
static size_t slot_count;
static uint32_t *kernels; /* address of each operator's kernel, 0 if it has none */
static size_t kernel_count;
static struct costs *costs; /* of each operator, and in front what belongs to none */
static uint32_t begin, end, entry_size;
static const char *output;

static bool inside;
static size_t operator_number; /* that is running, from 1; 0 for none */
static size_t operators_begun;
/* Executed and not yet simulated: a pair, and the next one, which says where the pair led to. */
static struct executed waiting[3];
static size_t waiting_count;

static void fail(const char *message, const char *detail) {
    fprintf(stderr, "cycles: %s%s\n", message, detail);
    exit(1);
}

static void simulate(size_t known, uint32_t next) {
    size_t (*issue)(const struct executed *, size_t, uint32_t) =
        core.dual_issue ? dual_issue : single_issue;
    size_t issued = issue(waiting, known, next);
    waiting_count -= issued;
    memmove(waiting, waiting + issued, waiting_count * sizeof *waiting);
}

static void write_costs(void) {
    FILE *file = fopen(output, "w");
    if (!file) {
        fail("cannot write ", output);
    }
    for (size_t i = 0; i <= kernel_count; i++) {
        const struct costs *c = costs + i;
        const uint64_t columns[] = {c->instructions, c->issue,       c->dependency,
                                    c->fetch,        c->data_misses, c->instruction_misses,
                                    c->branches,     c->multiples,   c->floats};
        for (size_t k = 0; k < sizeof columns / sizeof *columns; k++) {
            fprintf(file, "%" PRIu64 " ", columns[k]);
        }
        fputc('\n', file);
    }
    if (fclose(file)) {
        fail("cannot write ", output);
    }
}

static void finish(unsigned processor, void *unused) {
    (void)processor;
    (void)unused;
    while (inside && waiting_count) {
        simulate(waiting_count < 2 ? waiting_count : 2,
                 waiting_count < 3 ? end : waiting[2].what->address);
    }
    if (inside) {
        write_costs();
    }
    inside = false;
}

static void unknown(unsigned processor, void *argument) {
    uint32_t address = (uint32_t)(uintptr_t)argument;
    (void)processor;
    if (inside || address == begin) {
        char text[32];
        snprintf(text, sizeof text, "0x%08" PRIx32, address);
        fail("an instruction the disassembler does not know is at ", text);
    }
}

/* An operator lasts from its kernel's first instruction until the function that calls kernels goes
 * on. One without a kernel, a copy, has what is between its neighbours. */
static void find_operator(const struct slot *slot) {
    if (slot->starts_kernel) {
        for (size_t i = operators_begun; i < kernel_count; i++) {
            if (kernels[i] == slot->what.address) {
                operator_number = operators_begun = i + 1;
                return;
            }
        }
    } else if (slot->calls_kernels && operator_number && kernels[operator_number - 1]) {
        bool copies = operators_begun < kernel_count && kernels[operators_begun] == 0;
        operator_number = copies ? ++operators_begun : 0;
    }
}

static void executed(unsigned processor, void *argument) {
    struct slot *slot = argument;
    (void)processor;
    if (!inside) {
        if (slot->what.address != begin) {
            return;
        }
        inside = true;
        memset(costs, 0, (kernel_count + 1) * sizeof *costs);
        operator_number = operators_begun = kernel_count && kernels[0] == 0 ? 1 : 0;
    }
    if (waiting_count == 3) {
        simulate(2, waiting[2].what->address);
    }
    find_operator(slot);
    waiting[waiting_count++] =
        (struct executed){&slot->what, &slot->prediction, costs + operator_number, 0};
}

static void accessed(unsigned processor, uint32_t info, uint64_t address, void *unused) {
    (void)processor;
    (void)info;
    (void)unused;
    if (inside && waiting[waiting_count - 1].address == 0) {
        waiting[waiting_count - 1].address = (uint32_t)address;
    }
}

static int by_address(const void *key, const void *slot) {
    uint32_t a = *(const uint32_t *)key, b = ((const struct slot *)slot)->what.address;
    return a < b ? -1 : a > b;
}

static void translated(uint64_t plugin, struct qemu_plugin_tb *block) {
    (void)plugin;
    for (size_t i = 0; i < qemu_plugin_tb_n_insns(block); i++) {
        struct qemu_plugin_insn *instruction = qemu_plugin_tb_get_insn(block, i);
        uint32_t address = (uint32_t)qemu_plugin_insn_vaddr(instruction);
        struct slot *slot = bsearch(&address, slots, slot_count, sizeof *slots, by_address);
        if (address == end) {
            qemu_plugin_register_vcpu_insn_exec_cb(instruction, finish, NO_REGISTERS, NULL);
        } else if (slot) {
            qemu_plugin_register_vcpu_insn_exec_cb(instruction, executed, NO_REGISTERS, slot);
            qemu_plugin_register_vcpu_mem_cb(instruction, accessed, NO_REGISTERS, READ_AND_WRITE,
                                             NULL);
        } else {
            qemu_plugin_register_vcpu_insn_exec_cb(instruction, unknown, NO_REGISTERS,
                                                   (void *)(uintptr_t)address);
        }
    }
}

/* The content of a file, an array of elements of `size` bytes. */
static void *read_file(const char *path, size_t size, size_t *count) {
    FILE *file = fopen(path, "rb");
    if (!file || fseek(file, 0, SEEK_END)) {
        fail("cannot read ", path);
    }
    *count = (size_t)ftell(file) / size;
    rewind(file);
    void *content = calloc(*count + 1, size);
    if (!content || fread(content, size, *count, file) != *count) {
        fail("cannot read ", path);
    }
    fclose(file);
    return content;
}

static void read_instructions(const char *path) {
    struct instruction *all = read_file(path, sizeof *all, &slot_count);
    slots = calloc(slot_count + 1, sizeof *slots);
    for (size_t i = 0; slots && i < slot_count; i++) {
        slots[i].what = all[i];
        slots[i].prediction.counter = 1; /* weakly not taken */
    }
    free(all);
}

static bool option(const char *name, const char *value) {
    uint32_t number = (uint32_t)strtoul(value, NULL, 0);
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) {
        if (strcmp(name, numbers[i].name) == 0) {
            *numbers[i].value = number;
            return true;
        }
    }
    if (strcmp(name, "begin") == 0) {
        begin = number;
    } else if (strcmp(name, "end") == 0) {
        end = number;
    } else if (strcmp(name, "entry_size") == 0) {
        entry_size = number;
    } else if (strcmp(name, "costs") == 0) {
        output = strdup(value);
    } else if (strcmp(name, "instructions") == 0) {
        read_instructions(value);
    } else if (strcmp(name, "kernels") == 0) {
        kernels = read_file(value, sizeof *kernels, &kernel_count);
    } else {
        return memory_option(name, value);
    }
    return true;
}

int qemu_plugin_install(uint64_t plugin, const void *machine, int count, char **options) {
    (void)machine;
    for (int i = 0; i < count; i++) {
        char *value = strchr(options[i], '=');
        if (value) {
            *value++ = 0;
        }
        if (!value || !option(options[i], value)) {
            fail("unknown option ", options[i]);
        }
    }
    costs = calloc(kernel_count + 1, sizeof *costs);
    if (!slots || !kernels || !output || !costs) {
        fail("options instructions, kernels and costs are needed", "");
    }
    for (size_t i = 0; i < slot_count; i++) {
        uint32_t address = slots[i].what.address;
        slots[i].calls_kernels = address - begin < entry_size;
        for (size_t k = 0; k < kernel_count; k++) {
            slots[i].starts_kernel |= kernels[k] == address;
        }
    }
    qemu_plugin_register_vcpu_tb_trans_cb(plugin, translated);
    return 0;
}
