// SPDX-License-Identifier: AGPL-3.0-only

package command

import "context"

// NoticeReach is what has become of a notice on all devices that it was sent to. A device that has shown it has stored it,
// and one that has acknowledged it has shown it.
type NoticeReach struct {
	Devices      int64 `json:"devices" doc:"Whose turn has come"`
	Stored       int64 `json:"stored"`
	Shown        int64 `json:"shown"`
	Acknowledged int64 `json:"acknowledged"`
	Failed       int64 `json:"failed" doc:"That did not take it, or were not there in time"`
}

// NoticeReach counts the devices of a notice.
func (s *Service) NoticeReach(ctx context.Context, tenant, notice string) (r NoticeReach, err error) {
	err = s.cfg.DB.QueryRow(ctx, `SELECT count(*), count(CASE WHEN stored > 0 THEN 1 END), count(CASE WHEN shown > 0 THEN 1 END), count(CASE WHEN acknowledged > 0 THEN 1 END),
		count(CASE WHEN stored = 0 AND failed <> '' THEN 1 END) FROM command_notice WHERE tenant = $1 AND notice = $2`, tenant, notice).Scan(&r.Devices, &r.Stored, &r.Shown, &r.Acknowledged, &r.Failed)
	return r, err
}
