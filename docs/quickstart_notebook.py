# %% [markdown]
# # Relume in a notebook
#
# Trains a small network to clear underwater photographs, on a CPU in minutes, and shows what it does.
# Nothing is downloaded but the packages.

# %%
try:
    import relume
except ImportError:  # in Colab
    import subprocess
    import sys

    subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", "relume"], check=True)
    import relume

# %% [markdown]
# ## Train
#
# `iterations` is what the quickstart has; 20 are enough to see that it runs.

# %%
import os

from relume.core import options
from relume.core.pipeline import test_pipeline, train_pipeline

iterations = int(os.environ.get("ITERATIONS", "400"))
opt = options.load("relume:quickstart.yml", [f"train:total_iter={iterations}", f"val:val_freq={iterations}"])
scores = train_pipeline(opt)

# %% [markdown]
# ## Score it on photographs that training has not seen

# %%
results = test_pipeline(options.load("relume:underwater/test/quickstart.yml"))
for dataset, metrics in results.items():
    print(dataset, {name: round(value, 3) for name, value in metrics.items()})

# %% [markdown]
# ## Use it: input, output

# %%
import matplotlib.pyplot as plt
import numpy as np
from skimage import data

restore = relume.load("experiments/quickstart/models/net_g_best.pth")
picture = np.ascontiguousarray(data.coffee()[:192, :192])
green = (picture * np.array([0.35, 0.8, 0.75])).astype(np.uint8)
figure, places = plt.subplots(1, 2, figsize=(8, 4))
for place, image, title in zip(places, (green, restore(green)), ("input", "output"), strict=True):
    place.imshow(image)
    place.set_title(title)
    place.axis("off")
figure.savefig("quickstart_notebook.png")
plt.show()
