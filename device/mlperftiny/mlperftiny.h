/* Device side of the MLPerf Tiny (EEMBC EnergyRunner) serial protocol; see docs/protocol.md. */
#ifndef MCUFORGE_MLPERFTINY_H
#define MCUFORGE_MLPERFTINY_H

/* Says that it is ready, then answers commands for ever. */
void mlperftiny_serve(void);

#endif
