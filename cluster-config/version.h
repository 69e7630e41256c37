/* SPDX-License-Identifier: Apache-2.0 */
/* cluster-config/version.h - what --version prints. */
#ifndef CC_VERSION_H
#define CC_VERSION_H

#define CC_VERSION_TEXT "0.1.0"

#endif
