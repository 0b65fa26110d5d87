// SPDX-License-Identifier: AGPL-3.0-only

package openbao

// Definition is what the issuer writes as the role of a profile.
func Definition(profile string, store bool) map[string]any { return definition(profile, store) }
