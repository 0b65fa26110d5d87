// SPDX-License-Identifier: AGPL-3.0-only

package update

import (
	"fmt"
	"testing"

	"github.com/openthings-platform/openthings/wire"
)

func TestAdmitted(t *testing.T) {
	const devices = 20000
	for _, percent := range []int64{1, 10, 50, 99} {
		n := 0
		for i := range devices {
			id := fmt.Sprintf("dev_%d", i)
			if Admitted("dpl_1", id, percent) {
				n++
				if !Admitted("dpl_1", id, percent+1) {
					t.Fatalf("%s is in the first %d %% and not in the first %d %%", id, percent, percent+1)
				}
			}
		}
		want := devices * int(percent) / 100
		if n < want-want/5-60 || n > want+want/5+60 {
			t.Errorf("%d %% of %d devices are %d", percent, devices, n)
		}
	}
	if !Admitted("dpl_1", "dev_1", 100) {
		t.Error("100 % leaves one out")
	}
}

func TestJudge(t *testing.T) {
	for _, row := range []struct {
		p    progress
		last bool
		want move
	}{
		{progress{}, false, widen},
		{progress{}, true, wait}, // nobody to update yet
		{progress{Admitted: 5}, false, wait},
		{progress{Admitted: 5, Open: 1, Committed: 4}, false, wait},
		{progress{Admitted: 5, Committed: 1}, false, widen}, // four are out of reach and hold nothing up
		{progress{Admitted: 5, Committed: 1}, true, wait},
		{progress{Admitted: 5, Committed: 5}, true, complete},
		{progress{Admitted: 5, Committed: 3, Failed: 2}, true, complete},
		{progress{Admitted: 5, Failed: 2}, false, wait}, // a person decides
		{progress{Admitted: 5, Failed: 3, Open: 2}, false, abort},
		{progress{Admitted: 9, Committed: 6, Failed: 3}, true, abort},
	} {
		if got := judge(row.p, row.last); got != row.want {
			t.Errorf("%+v, last %v: %d, want %d", row.p, row.last, got, row.want)
		}
	}
}

func FuzzReport(f *testing.F) {
	f.Add([]byte(`{"state":"committed","inventory":{"version":"1","security_version":1,"image":"sha256:00","slot":"a","floor":1,"boot":1}}`))
	f.Add([]byte(`{"boot":18446744073709551615}`))
	f.Add([]byte(`[]`))
	f.Fuzz(func(t *testing.T, b []byte) {
		var st wire.UpdateStatus
		_ = parseReport(b, &st)
		var inv wire.Inventory
		_ = parseReport(b, &inv)
		if n := len(cut(st.Reason + inv.Version)); n > maxWord {
			t.Fatalf("%d bytes get through", n)
		}
	})
}
