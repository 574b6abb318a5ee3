package backfill

import "sync"

// pool works on tasks with up to so many goroutines. They stay for the next task:
// to read a repo takes a deep stack, and a new goroutine would have to grow one.
type pool struct {
	size  int
	do    func(task)
	tasks chan task

	started int
	running sync.WaitGroup
}

// give hands a task to a goroutine, and waits until one is free.
func (p *pool) give(t task) {
	if p.started < p.size {
		select {
		case p.tasks <- t:
			return
		default:
		}
		p.started++
		p.running.Go(func() {
			p.do(t)
			for t := range p.tasks {
				p.do(t)
			}
		})
		return
	}
	p.tasks <- t
}

// wait waits until all tasks are done.
func (p *pool) wait() {
	close(p.tasks)
	p.running.Wait()
}
