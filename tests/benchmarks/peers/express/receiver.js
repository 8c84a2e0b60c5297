// The Express receiver from the providers' documentation, on a free port, which also reports its CPU time. It stores
// nothing. The download is left out: failed tasks have nothing to download.
const express = require('express');
const app = express();

app.use(express.json());

app.post('/flux-image-callback', (req, res) => {
  const { code, msg, data } = req.body;

  console.log('Received Flux image generation callback:', {
    taskId: data.taskId,
    status: code,
    message: msg
  });

  console.log('Flux image generation failed:', msg);
  if (code === 400) {
    console.log('Content policy violation - please adjust prompt');
  } else if (code === 500) {
    console.log('Internal error - please try again later');
  } else if (code === 501) {
    console.log('Generation task failed - may need to adjust parameters');
  }

  res.status(200).json({ status: 'received' });
});

app.get('/cpu', (req, res) => {
  const { user, system } = process.cpuUsage();
  res.json((user + system) / 1e6);
});

const server = app.listen(0, '127.0.0.1', () => {
  process.stderr.write(`${server.address().port}\n`);
});
