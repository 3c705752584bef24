/* SPDX-License-Identifier: Apache-2.0 */
/* Port for every board Zephyr knows: the console's UART and the finest cycle counter there is. */
#include "port.h"

#include <zephyr/cache.h>
#include <zephyr/device.h>
#include <zephyr/drivers/uart.h>
#include <zephyr/fatal.h>
#include <zephyr/kernel.h>
#include <zephyr/sys/reboot.h>
#include <zephyr/timing/timing.h>

#include "application.h"
#include "print.h"
#include "ticks.h"

static const struct device *const uart = DEVICE_DT_GET(DT_CHOSEN(zephyr_console));

static bool counts_cycles; /* the core's cycle counter counts; under QEMU it stands still */
static uint32_t start_tick;
static uint64_t start_time;

static uint32_t timer_hz(void) { return (uint32_t)sys_clock_hw_cycles_per_sec(); }

/* Cycles of the kernel's timer since boot. Its ticks are counted in 64 bits, its cycles not with
 * every timer. */
static uint64_t timer_cycles(void) {
    uint64_t coarse = (uint64_t)k_uptime_ticks() * (timer_hz() / CONFIG_SYS_CLOCK_TICKS_PER_SEC);
    return ticks_extend(coarse, k_cycle_get_32());
}

static uint32_t tick(void) {
    return counts_cycles ? (uint32_t)timing_counter_get() : k_cycle_get_32();
}

/* A counter coarser than the core is caught on its edge, so that equal work gives equal counts. */
void port_ticks_start(void) {
    start_time = timer_cycles();
    uint32_t before = tick();
    do {
        start_tick = tick();
    } while (start_tick == before);
}

uint64_t port_ticks(void) {
    uint32_t now = tick();
    uint64_t time = timer_cycles() - start_time;
    return ticks_extend(ticks_scale(time, timer_hz(), port_ticks_hz()), now - start_tick);
}

uint32_t port_ticks_hz(void) { return counts_cycles ? (uint32_t)timing_freq_get() : timer_hz(); }

uint64_t port_time_us(void) { return ticks_scale(timer_cycles(), timer_hz(), 1000000u); }

uint32_t *port_stack_limit(void) { return (uint32_t *)k_current_get()->stack_info.start; }

#ifdef CONFIG_UART_INTERRUPT_DRIVEN

/* While the board listens, the UART interrupts; while it works, nothing disturbs what is measured.
 * Looking for a byte costs no access to the UART, of which each is slow under an emulator. */
static uint8_t received[64];
static volatile uint32_t received_begin;
static volatile uint32_t received_end;
static volatile bool listening;
static K_SEM_DEFINE(wake, 0, 1);

static void on_uart(const struct device *device, void *data) {
    ARG_UNUSED(data);
    uart_irq_update(device);
    while (received_end - received_begin < sizeof received &&
           uart_fifo_read(device, &received[received_end % sizeof received], 1) == 1) {
        received_end++;
    }
    if (received_end - received_begin == sizeof received) { /* the rest waits in the UART */
        listening = false;
        uart_irq_rx_disable(device);
    }
    k_sem_give(&wake);
}

static void listen(void) {
    unsigned int key = irq_lock();
    listening = true;
    uart_irq_rx_enable(uart);
    on_uart(uart, NULL); /* not every UART interrupts for a byte that was there before */
    irq_unlock(key);
}

static void work(void) {
    listening = false;
    uart_irq_rx_disable(uart);
}

char port_getc(void) {
    if (received_begin == received_end && !listening) {
        listen();
    }
    for (int spin = 0; spin < 3000 && received_begin == received_end; spin++) {
    }
    while (received_begin == received_end) {
        k_sem_take(&wake, K_FOREVER);
    }
    char c = (char)received[received_begin % sizeof received];
    received_begin++;
    return c;
}

void port_putc(char c) {
    if (listening) {
        work();
    }
    uart_poll_out(uart, (unsigned char)c);
}

#else

char port_getc(void) {
    unsigned char c;
    while (uart_poll_in(uart, &c) != 0) {
    }
    return (char)c;
}

void port_putc(char c) { uart_poll_out(uart, (unsigned char)c); }

#endif

void port_init(void) {
#ifdef CONFIG_CACHE_MANAGEMENT /* some boards leave their caches off */
    sys_cache_instr_enable();
    sys_cache_data_enable();
#endif
#ifdef CONFIG_UART_INTERRUPT_DRIVEN
    uart_irq_rx_disable(uart);
    uart_irq_tx_disable(uart);
    uart_irq_callback_user_data_set(uart, on_uart, NULL);
#endif
    timing_init();
    timing_start();
    uint32_t before = (uint32_t)timing_counter_get();
    k_busy_wait(10);
    counts_cycles = (uint32_t)timing_counter_get() != before;
    port_ticks_start();
}

/* Reports the fault and resets the board, so that the next command finds it ready again. */
void k_sys_fatal_error_handler(unsigned int reason, const struct arch_esf *frame) {
    print_text("\r\ne-[Fault ");
    print_uint(reason);
#ifdef CONFIG_CPU_CORTEX_M
    print_text(": pc=0x");
    print_hex(frame ? frame->basic.pc : 0u, 8);
#else
    ARG_UNUSED(frame);
#endif
    print_text("]\r\n");
    k_busy_wait(2000); /* the UART may still be sending its last bytes */
    sys_reboot(SYS_REBOOT_COLD);
}

int main(void) {
    port_init();
    application_run();
    return 0;
}
