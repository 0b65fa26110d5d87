// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"

	"github.com/openthings-platform/openthings/wire"
)

// RunUntilCut is Run with a power that may go before any effect on disk.
func RunUntilCut(ctx context.Context, c Config, cut func(effect string) error) error {
	return run(ctx, c, disk{dir: c.Dir, cut: cut}, func(*agent) {})
}

// ReadReports is what a device has yet to tell of its notices.
func ReadReports(dir string) ([]wire.NoticeReport, error) {
	var f noticeFile
	err := disk{dir: dir}.readJSON(noticesName, &f)
	return f.Reports, err
}
