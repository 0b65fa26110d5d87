// SPDX-License-Identifier: AGPL-3.0-only

package alarm

import "context"

// Rules are the rules that whoever asks may read.
func (s *Service) Rules(ctx context.Context) ([]Rule, error) { return s.rules(ctx) }
