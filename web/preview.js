// The page takes what a node with a video input shows for a video; what MMAudio: Generate shows is a picture.
import { app } from '../../scripts/app.js';

app.registerExtension({
  name: 'MMAudioGraph.Preview',
  nodeCreated(node) {
    if (node.comfyClass === 'MMAudioGraphGenerate') node.previewMediaType = 'image';
  },
});
