/* SPDX-License-Identifier: Apache-2.0 */
/* One instruction after the other, each with the cycles of a table, as of the Cortex-M4. */
#include "model.h"

size_t single_issue(const struct executed *executed, size_t known, uint32_t next) {
    static bool after_load;
    const struct instruction *what = executed->what;
    struct costs *costs = executed->costs;
    uint32_t after = known > 1 ? executed[1].what->address : next;
    int64_t busy = 1;
    if (what->class == LOAD) {
        busy += after_load ? 0 : core.load_alone;
        bool unaligned = what->width > 1 && executed->address % what->width;
        busy += unaligned ? core.load_unaligned : 0;
    } else if (what->class == MULTIPLE) {
        busy = core.multiple_setup + what->count / core.multiple_registers;
    } else if (what->class == DIVIDE) {
        busy += core.divide;
    }
    after_load = what->class == LOAD;
    costs->instructions++;
    costs->floats += what->class == FLOAT;
    costs->issue += (uint64_t)busy;
    costs->multiples += what->class == MULTIPLE ? (uint64_t)busy : 0;
    costs->instruction_misses += (uint64_t)fetch_miss(what);
    costs->data_misses += (uint64_t)data_miss(executed);
    if (what->branch != NO_BRANCH && after != what->address + what->size) {
        costs->branches += (uint64_t)core.taken_branch;
    }
    return 1;
}
