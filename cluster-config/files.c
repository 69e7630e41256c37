/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cluster-config/files.c - is that a kernel, can that disk be opened, is that address ours?
 *
 * I/O       Opens and reads; binds a datagram socket for a moment, sends nothing.
 */
#include "cluster-config/files.h"

#include "base/bytes.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#define BZIMAGE_MAGIC_AT 0x202 /* Linux, Documentation/arch/x86/boot.rst: "HdrS" */
#define BOOT_FLAG_AT 0x1fe
#define BOOT_FLAG 0xaa55
#define ELF_MACHINE_AT 18
#define EM_386_ID 3
#define EM_X86_64_ID 62

int cc_file_read(const char *path, size_t max, char **text, size_t *len)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC), err = 0;
	size_t have = 0, room = 0;
	char *buf = NULL;

	if (fd < 0)
		return -errno;
	while (have < max) {
		ssize_t n;

		if (have + 1 >= room) {
			char *grown = realloc(buf, room = room ? room * 2 : 8192);

			if (!grown) {
				err = -ENOMEM;
				break;
			}
			buf = grown;
		}
		n = read(fd, buf + have,
			 room - have - 1 < max - have ? room - have - 1 : max - have);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			err = -errno;
		if (n <= 0)
			break;
		have += (size_t)n;
	}
	close(fd);
	if (err) {
		free(buf);
		return err;
	}
	buf[have] = 0;
	*text = buf;
	*len = have;
	return 0;
}

static int file_open(const char *path, bool write, int *out, char *why)
{
	int fd = open(path, (write ? O_RDWR : O_RDONLY) | O_CLOEXEC | O_NONBLOCK), err;
	struct stat st;

	if (fd < 0 || fstat(fd, &st)) {
		err = -errno;
		if (fd >= 0)
			close(fd);
		snprintf(why, CC_FILES_WHY_MAX, "%s", strerror(-err));
		return err;
	}
	if (!S_ISREG(st.st_mode) && !S_ISBLK(st.st_mode)) {
		close(fd);
		snprintf(why, CC_FILES_WHY_MAX, "not a file");
		return -EINVAL;
	}
	*out = fd;
	return 0;
}

int cc_file_check(const char *path, bool write, char why[static CC_FILES_WHY_MAX])
{
	int fd, err = file_open(path, write, &fd, why);

	if (!err)
		close(fd);
	return err;
}

static bool is_bzimage(const uint8_t *head, size_t len)
{
	return len >= BZIMAGE_MAGIC_AT + 4 && get_le16(head + BOOT_FLAG_AT) == BOOT_FLAG &&
	       !memcmp(head + BZIMAGE_MAGIC_AT, "HdrS", 4);
}

static bool is_elf_x86(const uint8_t *head, size_t len)
{
	return len >= 20 &&
	       !memcmp(head,
		       "\x7f"
		       "ELF",
		       4) &&
	       (get_le16(head + ELF_MACHINE_AT) == EM_386_ID ||
		get_le16(head + ELF_MACHINE_AT) == EM_X86_64_ID);
}

int cc_kernel_check(const char *path, char why[static CC_FILES_WHY_MAX])
{
	uint8_t head[1024];
	ssize_t n;
	int fd, err = file_open(path, false, &fd, why);

	if (err)
		return err;
	n = read(fd, head, sizeof(head));
	err = n < 0 ? -errno : 0;
	close(fd);
	if (err) {
		snprintf(why, CC_FILES_WHY_MAX, "%s", strerror(-err));
		return err;
	}
	if (is_bzimage(head, (size_t)n) || is_elf_x86(head, (size_t)n))
		return 0;
	snprintf(why, CC_FILES_WHY_MAX, "neither a Linux bzImage nor an ELF file for x86");
	return -EINVAL;
}

static socklen_t address_parse(const char *text, struct sockaddr_storage *out)
{
	struct sockaddr_in *v4 = (struct sockaddr_in *)out;
	struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)out;

	memset(out, 0, sizeof(*out));
	if (inet_pton(AF_INET, text, &v4->sin_addr) == 1) {
		out->ss_family = AF_INET;
		return sizeof(*v4);
	}
	if (inet_pton(AF_INET6, text, &v6->sin6_addr) == 1) {
		out->ss_family = AF_INET6;
		return sizeof(*v6);
	}
	return 0;
}

bool cc_address_is_local(const char *address)
{
	struct sockaddr_storage a;
	socklen_t len = address_parse(address, &a);
	bool ours;
	int fd;

	if (!len)
		return false;
	fd = socket(a.ss_family, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return false;
	ours = !bind(fd, (struct sockaddr *)&a, len);
	close(fd);
	return ours;
}

bool cc_address_is_loopback(const char *address)
{
	struct sockaddr_storage a;

	if (!address_parse(address, &a))
		return false;
	if (a.ss_family == AF_INET)
		return ntohl(((struct sockaddr_in *)&a)->sin_addr.s_addr) >> 24 == 127;
	return IN6_IS_ADDR_LOOPBACK(&((struct sockaddr_in6 *)&a)->sin6_addr);
}
