/* SPDX-License-Identifier: Apache-2.0 */
/* newlib's math functions report errors through errno, whose usual home is a re-entrancy structure
 * of a kilobyte of RAM. One int is enough here. */
int *__errno(void);

int *__errno(void) {
    static int error;
    return &error;
}
