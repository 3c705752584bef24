/* SPDX-License-Identifier: Apache-2.0 */
/* Time of each operator of the model, in firmware built with TVMGEN_PROFILE. */
#ifndef MCUFORGE_OPERATORS_H
#define MCUFORGE_OPERATORS_H

/* Forgets what was counted. */
void operators_begin(void);

/* An operator that does nothing: what is counted for it is what the counting itself takes. To be
 * called after each inference. */
void operators_calibrate(void);

/* Prints the ticks of each operator, of all inferences together, less those of the counting. */
void operators_print(void);

#endif
