// SPDX-License-Identifier: AGPL-3.0-only

package telemetry

import (
	"context"
	"io"
)

// WriteExport writes what e asks for, device by device and from early to late, as far as whoever asks may read it. What it
// holds in memory does not grow with the history.
func (s *Service) WriteExport(ctx context.Context, e Export, w io.Writer) error {
	if err := e.check(); err != nil {
		return err
	}
	return s.export(ctx, e, w)
}

// Place is where the event stands in the list, for asking after it.
func (e SecurityEvent) Place() string { return e.place() }
