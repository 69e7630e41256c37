/* SPDX-License-Identifier: Apache-2.0 */
/*
 * base/log.h - one line per fact: time, node, thread, level, "component: key value".
 *
 * Threads   Any; a line is one write(2) to stderr and is never interleaved.
 * Limits    A line is cut at 1 000 bytes.  Volume follows VMs and moves, never faults.
 */
#ifndef BASE_LOG_H
#define BASE_LOG_H

enum log_level { LOG_ERROR, LOG_WARN, LOG_INFO, LOG_DEBUG };

/* Name of this process in every line ("n1", "agent alpha"); copied.  Call before threads start. */
void log_set_ident(const char *ident);
/* Lines above `level` are dropped; default LOG_WARN, or $UNUM_LOG=error|warn|info|debug. */
void log_set_level(enum log_level level);
/* Name of the calling thread in every line ("vcpu/3"); not copied, must outlive the thread. */
void log_set_thread(const char *name);
void log_line(enum log_level level, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

#define log_error(...) log_line(LOG_ERROR, __VA_ARGS__)
#define log_warn(...) log_line(LOG_WARN, __VA_ARGS__)
#define log_info(...) log_line(LOG_INFO, __VA_ARGS__)
#define log_debug(...) log_line(LOG_DEBUG, __VA_ARGS__)

#endif
