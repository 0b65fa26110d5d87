// SPDX-License-Identifier: AGPL-3.0-only

package fleet

import "context"

// Groups returns at most n groups of the tenant by name, after the one with the name given ("": from the first).
func (s *Service) Groups(ctx context.Context, tenant, after string, n int) ([]GroupLine, error) {
	groups, err := groupsOf(ctx, s.cfg.DB, tenant, after, n)
	lines := make([]GroupLine, len(groups))
	for i, g := range groups {
		lines[i] = GroupLine{g, g.kind()}
	}
	return lines, err
}

// Labels returns the labels of devices of the tenant, at most a few hundred, by device.
func (s *Service) Labels(ctx context.Context, tenant string, devices []string) (map[string]map[string]string, error) {
	return labelsOf(ctx, s.cfg.DB, tenant, devices)
}
