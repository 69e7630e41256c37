/* SPDX-License-Identifier: Apache-2.0 */
/* cluster-config/files.h - looks at files and addresses of this host; see files.c. */
#ifndef CC_FILES_H
#define CC_FILES_H

#include "base/err.h"
#include "base/types.h"

#define CC_FILES_WHY_MAX 128

/* Whole file of at most `max` bytes (more is cut there) in fresh memory with a NUL behind it. */
MUST_CHECK int cc_file_read(const char *path, size_t max, char **text, size_t *len);
/* A regular file or block device that can be opened.  -errno with the reason in `why`. */
MUST_CHECK int cc_file_check(const char *path, bool write, char why[static CC_FILES_WHY_MAX]);
/* The same, and it begins like a Linux bzImage or an ELF file for x86. */
MUST_CHECK int cc_kernel_check(const char *path, char why[static CC_FILES_WHY_MAX]);
/* The numeric address is one of this host's; false for host names. */
bool cc_address_is_local(const char *address);
/* In 127.0.0.0/8, or ::1. */
bool cc_address_is_loopback(const char *address);

#endif
