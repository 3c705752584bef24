/* SPDX-License-Identifier: Apache-2.0 */
/* What the firmware is for; one of device/mlperftiny and device/standalone. */
#ifndef MCUFORGE_APPLICATION_H
#define MCUFORGE_APPLICATION_H

/* Called once the port is up. Does not return. */
void application_run(void);

#endif
